"""select: a finished clip table in, the same clips under other thresholds out; nothing is decoded.

input: a finished artifact of kind `clips`, of `prepare` or of `select`. Thresholds that are not
stated stay as they are in the input. Near-duplicates are looked for where `near_duplicate_bits` is
stated, among the clips that the thresholds keep. The summary says what each filter costs.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import BeforeValidator, Field

from data_prep import phash, selection
from data_prep.filters import FiltersConfig
from data_prep.near_duplicates import MAX_BITS, near_duplicates
from infra import artifact, storage
from infra import config as configs
from infra.artifact import Output
from infra.config import JobConfig, Uri, as_tuple
from infra.errors import UserError
from infra.job import Job, main
from infra.log import logger
from infra.progress import Progress
from ray_jobs import clip_tables
from ray_jobs.clip_tables import (
    Against,
    add_up,
    check_accounts,
    report_lines,
    rewrite,
    threshold_report,
)


class SelectConfig(JobConfig):
    """Keys of ``python -m ray_jobs.select``."""

    input_keys: ClassVar[tuple[str, ...]] = ("input", "against")

    filters: dict[str, Any] = Field(default={})
    """Thresholds to change, such as filters.motion.min_score=1: any below `analysis.filters` of
    `prepare` but those that cut clips. The others stay as in the input."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=MAX_BITS)] | None = None
    """Filter clips whose perceptual hash differs from an earlier clip's in at most this many of 64
    bits (4 finds copies that were scaled and coded anew); None keeps them."""
    against: Annotated[tuple[Uri, ...], BeforeValidator(as_tuple)] = ()
    """Finished clip tables of earlier runs, whose clips come before the input's."""


def resolve(config: SelectConfig) -> FiltersConfig:
    """Return the thresholds of the input with those that the config states put over them."""
    return clip_tables.resolve(config.input, config.filters)


def plan(config: SelectConfig) -> list[str]:
    """Return what would be done; reads the input's summary and the schema of its first file."""
    filters = resolve(config)
    files = clip_tables.files_of(config.input[0])
    copies = _plan_copies(config)
    counts = artifact.read(config.input[0]).counts
    lines = [
        f"input: {counts['inputs']} videos in {len(files)} files, {counts['clips']} clips kept",
        *clip_tables.changes(config.input[0], filters),
    ]
    return [*lines, copies, "tasks: one a file, nothing is decoded"]


def run(config: SelectConfig, output: Output) -> dict[str, Any]:
    """Judge every clip anew, each file by one task, and return the summary."""
    filters = resolve(config)
    files = clip_tables.files_of(config.input[0])
    copies = _find_copies(config, filters, files)
    select: Any = ray.remote(num_cpus=config.resources.cpus_per_worker)(select_file)
    tasks = [
        select.remote(file, output.path("clips", storage.name(file)), filters, places)
        for file, places in zip(files, copies, strict=True)
    ]
    parts = []
    with Progress(len(tasks), "select", "files") as progress:
        for task in tasks:
            parts.append(ray.get(task))
            progress.advance()
    summary = add_up([accounts for accounts, _ in parts])
    check_accounts(summary, artifact.read(config.input[0]).counts["inputs"])
    report = threshold_report(sum((against for _, against in parts), Against()))
    for line in report_lines("select", report):
        logger.info(line)
    return {**summary, "filters": configs.as_tree(filters), "thresholds": report}


def _plan_copies(config: SelectConfig) -> str:
    """Check what near-duplicates need, and say in one line what will be done about them.

    Raises:
        UserError: `against` names no finished clip tables, names the input, or is of no use; or a
            table's hashes are of another kind.
    """
    bits = config.near_duplicate_bits
    if bits is None:
        if config.against:
            raise UserError("against: is only used with near_duplicate_bits, which is not stated")
        return "near-duplicates: kept"
    own = artifact.read(config.input[0]).fingerprint
    for uri in config.against:
        if artifact.read(uri, ("clips",)).fingerprint == own:
            raise UserError(f"against: {uri} is the input; its clips would be their own copies")
    for uri in (*config.input, *config.against):
        with storage.open_input(clip_tables.files_of(uri)[0]) as source:
            kind = (pq.read_schema(source).metadata or {}).get(b"longtake.phash", b"").decode()
        if kind != phash.KIND:
            raise UserError(f"{uri}: its hashes are {kind or 'none'}; expected {phash.KIND}")
    tables = f" and of {len(config.against)} other tables" if config.against else ""
    return f"near-duplicates: at most {bits} bits from an earlier clip of this table{tables}"


def _find_copies(
    config: SelectConfig, filters: FiltersConfig, files: list[str]
) -> list[frozenset[int]]:
    """Return for each file the places of the clips that are near-duplicates."""
    if config.near_duplicate_bits is None:
        return [frozenset()] * len(files)
    read = ray.remote(num_cpus=config.resources.cpus_per_worker)(hashes_of)
    earlier = [
        read.remote(file, None) for uri in config.against for file in clip_tables.files_of(uri)
    ]
    own = [read.remote(file, filters) for file in files]
    found = [ray.get(task) for task in (*earlier, *own)]
    return near_places(found, config.near_duplicate_bits)[len(earlier) :]


def hashes_of(source: str, filters: FiltersConfig | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, int64, and hashes, uint64, of a file's clips that may be compared.

    Args:
        source: a file of a clip table.
        filters: the thresholds; None takes the verdicts that the file has.
    """
    columns = [f"clips.list.element.{name}" for name in ("reason", "scores", "phash")]
    all_places, all_hashes, before = [], [], 0
    with storage.open_input(source) as file:
        for batch in pq.ParquetFile(file).iter_batches(4096, columns=columns):
            clips = batch.column("clips").flatten()
            places, values = selection.hashes(clips, filters)
            all_places.append(np.array(places, np.int64) + before)
            all_hashes.append(np.array(values, np.uint64))
            before += len(clips)
    return (
        np.concatenate([*all_places, np.empty(0, np.int64)]),
        np.concatenate([*all_hashes, np.empty(0, np.uint64)]),
    )


def near_places(
    files: Sequence[tuple[np.ndarray, np.ndarray]], max_bits: int
) -> list[frozenset[int]]:
    """Return the places of each file's near-duplicates, from its places and hashes."""
    near = near_duplicates(np.concatenate([hashes for _, hashes in files]), max_bits)
    ends = np.cumsum([len(places) for places, _ in files])[:-1]
    return [
        frozenset(places[mask].tolist())
        for (places, _), mask in zip(files, np.split(near, ends), strict=True)
    ]


def select_file(
    source: str, target: str, filters: FiltersConfig, copies: frozenset[int] = frozenset()
) -> tuple[dict[str, Any], Against]:
    """Write one file of the table under `filters`; return its accounts and what is against clips.

    Args:
        source: a file of the input's table.
        target: the file to write.
        filters: the thresholds.
        copies: places among the file's clips of those that are near-duplicates.
    """
    before = 0

    def judge(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, list[tuple[str, ...]]]:
        nonlocal before
        judged = selection.reselect(rows, filters, {place - before for place in copies})
        before += len(judged[1])
        return judged

    return rewrite(source, target, judge)


JOB = Job(name="select", kind="clips", config=SelectConfig, plan=plan, run=run)

if __name__ == "__main__":
    main(JOB)
