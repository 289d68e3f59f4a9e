"""select: a finished clip table in, the same clips under other thresholds out; nothing is decoded.

input: a finished artifact of kind `clips`, of `prepare` or of `select`. Thresholds that are not
stated stay as they are in the input. Near-duplicates are looked for where `near_duplicate_bits` is
stated, among the clips that the thresholds keep. The summary says what each filter costs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import BeforeValidator, Field

from data_prep import phash, selection
from data_prep.filters import FiltersConfig
from data_prep.filters.duration import CUTTING
from data_prep.near_duplicates import MAX_BITS, near_duplicates
from data_prep.selection import SCORES
from infra import artifact, storage
from infra import config as configs
from infra.artifact import Output
from infra.config import JobConfig, Section, Uri, as_tuple
from infra.errors import UserError
from infra.job import Job, main
from infra.progress import Progress, say
from ray_jobs.clip_tables import add_up, check_accounts, filters_of, tally
from ray_jobs.parts import ROW_GROUP_BYTES

ROWS_AT_ONCE = 64
_COUNTED = ["status", "reason", "duration_s", "cpu_seconds", "peak_rss_bytes"]
Against = Counter[tuple[str, ...]]
"""Clips by all the reasons against them."""


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


class _Stated(Section):
    filters: FiltersConfig


def resolve(config: SelectConfig) -> FiltersConfig:
    """Return the thresholds of the input with those that the config states put over them.

    Raises:
        UserError: the input is no finished clip table, a key or value is not allowed, or a
            change would move where clips begin and end.
    """
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact of kind clips")
    artifact.read(config.input[0], ("clips",))
    tree = filters_of(config.input[0])
    before = configs.build(_Stated, {"filters": tree}).filters
    after = configs.build(_Stated, {"filters": configs.merge(tree, config.filters)}).filters
    for key in CUTTING:
        was, now = getattr(before.duration, key), getattr(after.duration, key)
        if was != now:
            raise UserError(
                f"filters.duration.{key}: {now} cuts other clips than the input's {was}, which "
                "takes decoding; run prepare"
            )
    return after


def plan(config: SelectConfig) -> list[str]:
    """Return what would be done; reads the input's summary and the schema of its first file."""
    filters = resolve(config)
    files = _files(config.input[0])
    _check_scores(files[0])
    copies = _plan_copies(config)
    counts = artifact.read(config.input[0]).counts
    before = dict(_leaves(filters_of(config.input[0])))
    lines = [
        f"input: {counts['inputs']} videos in {len(files)} files, {counts['clips']} clips kept"
    ]
    for key, value in _leaves(configs.as_tree(filters)):
        changed = f" (input: {before.get(key)})" if before.get(key) != value else ""
        lines.append(f"filters.{key}: {value}{changed}")
    return [*lines, copies, "tasks: one a file, nothing is decoded"]


def run(config: SelectConfig, output: Output) -> dict[str, Any]:
    """Judge every clip anew, each file by one task, and return the summary."""
    filters = resolve(config)
    files = _files(config.input[0])
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
    for line in _table(report):
        say(line)
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
        with storage.open_input(_files(uri)[0]) as source:
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
    earlier = [read.remote(file, None) for uri in config.against for file in _files(uri)]
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
    accounts, against, before = [], Against(), 0
    with storage.open_input(source) as file, storage.open_output(target) as out:
        table = pq.ParquetFile(file)
        with pq.ParquetWriter(out, table.schema_arrow, compression="zstd") as writer:
            group: list[pa.RecordBatch] = []
            size_bytes = 0
            for batch in table.iter_batches(ROWS_AT_ONCE):
                here = {place - before for place in copies}
                rows, reasons = selection.reselect(batch, filters, here)
                before += len(reasons)
                accounts += _accounts(rows)
                against.update(reasons)
                group.append(rows)
                size_bytes += rows.nbytes
                if size_bytes >= ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group))
                    group, size_bytes = [], 0
            if group:
                writer.write_table(pa.Table.from_batches(group))
    return add_up(accounts), against


def threshold_report(against: Against) -> dict[str, Any]:
    """Return what each filter costs, from the clips by all the reasons against them.

    Returns:
        ``clips`` that were judged, ``kept`` under all filters together, and for each reason that
        rejects any: ``alone``, the clips it rejects with all other filters off; ``only``, those
        that would be kept if just this filter were off.
    """
    alone = Counter[str]()
    for reasons, count in against.items():
        alone.update(dict.fromkeys(reasons, count))
    return {
        "clips": against.total(),
        "kept": against[()],
        "reasons": {
            reason: {"alone": count, "only": against[(reason,)]}
            for reason, count in sorted(alone.items(), key=lambda item: (-item[1], item[0]))
        },
    }


def _table(report: dict[str, Any]) -> list[str]:
    rows = [("rejected for", "alone", "only it")]
    rows += [(r, f"{n['alone']:,}", f"{n['only']:,}") for r, n in report["reasons"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"  {r:<{widths[0]}}  {a:>{widths[1]}}  {o:>{widths[2]}}" for r, a, o in rows]
    kept = f"select: {report['kept']:,} of {report['clips']:,} clips kept"
    return [kept, *lines] if report["reasons"] else [kept]


def _accounts(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    clips = rows.column("clips")
    reasons = iter(clips.flatten().field("reason").to_pylist())
    return [
        tally({**row, "clips": [{"reason": next(reasons)} for _ in range(count)]})
        for row, count in zip(
            rows.select(_COUNTED).to_pylist(), clips.value_lengths().to_pylist(), strict=True
        )
    ]


def _files(uri: str) -> list[str]:
    """Return the files of a finished table, as its marker names them."""
    paths = [file["path"] for file in artifact.read(uri).files]
    files = [storage.join(uri, path) for path in paths if path.startswith("clips/")]
    gone = set(files).difference(storage.list_files(storage.join(uri, "clips")))
    if gone or not files:
        raise UserError(f"{min(gone, default=uri)}: a file of the clip table is not there")
    return files


def _check_scores(file: str) -> None:
    with storage.open_input(file) as source:
        clips = pq.read_schema(source).field("clips").type.value_type
    stored = {field.name for field in clips.field("scores").type}
    if missing := [name for name in SCORES if name not in stored]:
        raise UserError(
            f"{file}: has no score {', '.join(missing)}: made by an earlier version; "
            "run prepare again"
        )


def _leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


JOB = Job(name="select", kind="clips", config=SelectConfig, plan=plan, run=run)

if __name__ == "__main__":
    main(JOB)
