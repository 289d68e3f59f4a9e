"""Job `select`: the clips of a finished table under other thresholds; nothing is decoded.

input: a finished artifact of kind `clips`, of `prepare` or of `select`. Thresholds that are not
stated stay as they are in the input. Near-duplicates are looked for where `near_duplicate_bits` is
stated, among the clips that the thresholds keep. The summary says what each filter costs.
"""

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, Field

from data_prep import phash, selection
from data_prep.filters import FiltersConfig
from data_prep.near_duplicates import MAX_BITS
from infra import artifact, storage
from infra import config as configs
from infra.artifact import Output
from infra.config import JobConfig, Uri, as_tuple
from infra.errors import UserError
from infra.job import Job, main
from infra.log import logger
from ray_jobs import clip_tables, near_duplicate_search, units
from ray_jobs import judgement as judgements
from ray_jobs.clip_tables import check_accounts
from ray_jobs.judgement import Judgement, report_lines, threshold_report
from ray_jobs.near_duplicate_search import NearDuplicates
from ray_jobs.units import Factory, Parts, Receipt


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
    table = clip_tables.parts_of(config.input[0])
    copies = _plan_copies(config)
    counts = artifact.read(config.input[0]).counts
    lines = [
        f"input: {counts['inputs']} videos in {table.count} files, {counts['clips']} clips kept",
        *clip_tables.changes(config.input[0], filters),
    ]
    return [*lines, copies, "parts: one a file, nothing is decoded"]


def run(config: SelectConfig, output: Output) -> dict[str, Any]:
    """Judge every clip anew, a file of the table a part, and return the summary."""
    filters = resolve(config)
    table = clip_tables.parts_of(config.input[0])
    parts = replace(table, output_uri=output.uri)
    arguments = {
        "parts": parts,
        "table": table,
        "filters": filters,
        "copies": _find_copies(config, filters, table),
    }
    factory = Factory(PartSelection, arguments)
    for _ in units.run(parts, factory, config.resources, actors=False):
        pass
    judgement = judgements.read_all(parts.uris())
    check_accounts(judgement.accounts, artifact.read(config.input[0]).counts["inputs"])
    report = threshold_report(judgement.against)
    for line in report_lines("select", report):
        logger.info(line)
    return {**judgement.accounts, "filters": configs.as_tree(filters), "thresholds": report}


class PartSelection:
    """Worker: writes a file of the table under other thresholds.

    Args:
        parts: of the output.
        table: the input's.
        filters: the thresholds.
        copies: near-duplicates among the input's clips; None: not looked for.
    """

    def __init__(
        self,
        parts: Parts,
        table: Parts,
        filters: FiltersConfig,
        copies: NearDuplicates | None,
    ) -> None:
        self._parts, self._table, self._filters, self._copies = parts, table, filters, copies

    def __call__(self, part: int) -> Receipt:
        """Write the part's file."""
        source = self._table.uri(part)
        places = frozenset[int]()
        if self._copies is not None:
            places = self._copies.places(part, source, self._filters)
        made = select_file(source, self._parts.uri(part), self._filters, places)
        return {"rows": made.accounts["inputs"]}


def _find_copies(
    config: SelectConfig, filters: FiltersConfig, table: Parts
) -> NearDuplicates | None:
    if config.near_duplicate_bits is None:
        return None
    earlier = [clip_tables.parts_of(uri) for uri in config.against]
    bits = config.near_duplicate_bits
    return near_duplicate_search.search(table, filters, earlier, bits, config.resources)


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
        with storage.open_input(clip_tables.parts_of(uri).uri(0)) as source:
            kind = (pq.read_schema(source).metadata or {}).get(b"longtake.phash", b"").decode()
        if kind != phash.KIND:
            raise UserError(f"{uri}: its hashes are {kind or 'none'}; expected {phash.KIND}")
    tables = f" and of {len(config.against)} other tables" if config.against else ""
    return f"near-duplicates: at most {bits} bits from an earlier clip of this table{tables}"


def select_file(
    source: str, target: str, filters: FiltersConfig, copies: frozenset[int] = frozenset()
) -> Judgement:
    """Write one file of the table under `filters`; return what came of it.

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

    return judgements.rewrite(source, target, judge)


JOB = Job(name="select", kind="clips", config=SelectConfig, plan=plan, run=run)

if __name__ == "__main__":
    main(JOB)
