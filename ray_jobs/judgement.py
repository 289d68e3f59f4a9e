"""Judgement of a clip table: each file written again with other verdicts, and what they add up to.

A judged file carries its own receipt in its footer (:class:`Judgement`), so that the accounts of a
table are read from the ends of its files, whichever run wrote them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import parquet, storage
from ray_jobs.clip_tables import add_up, tallies
from ray_jobs.part_files import FILES_AT_ONCE, read_footer, write_tables

ROWS_AT_ONCE = 64
Against = Counter[tuple[str, ...]]
"""Clips by all the reasons against them."""
Judge = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, list[tuple[str, ...]]]]
"""Returns rows with other verdicts, and all reasons against each of their clips."""
_KEY = "longtake.judgement"


@dataclass(frozen=True)
class Judgement:
    """What came of judging some files of a clip table."""

    accounts: dict[str, Any]
    """As :func:`ray_jobs.clip_tables.add_up` gives them."""
    against: Against
    unreadable_clips: int = 0
    """Clips that models were to score and that could not be read."""

    def metadata(self) -> dict[str, str]:
        """Return the entry for a Parquet file's metadata."""
        against = [[list(reasons), count] for reasons, count in self.against.items()]
        return {_KEY: json.dumps([self.accounts, against, self.unreadable_clips])}


def rewrite(
    source: str,
    target: str,
    judge: Judge,
    metadata: dict[str, str] | None = None,
    unreadable_clips: int = 0,
) -> Judgement:
    """Write one file of a table with other verdicts; return what came of it.

    Args:
        source: a file of a clip table.
        target: the file to write.
        judge: is given the rows, some at a time and in order.
        metadata: to add to the schema's.
        unreadable_clips: of the file, for its receipt.
    """
    accounts: list[dict[str, Any]] = []
    against = Against()

    def judgement() -> Judgement:
        return Judgement(add_up(accounts), against, unreadable_clips)

    with storage.open_input(source) as file:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow  # with the table's metadata, without those of the footer
        schema = schema.with_metadata({**(schema.metadata or {}), **(metadata or {})})

        def judged() -> Iterator[pa.Table]:
            for batch in parquet.batches(table, ROWS_AT_ONCE):
                rows, reasons = judge(batch)
                accounts.extend(tallies(rows))
                against.update(reasons)
                yield pa.Table.from_batches([rows]).cast(schema)

        write_tables(target, schema, judged(), lambda: judgement().metadata())
    return judgement()


def read_all(uris: Iterable[str]) -> Judgement:
    """Return the sum of the receipts of judged files; holds a few files' receipts at a time."""
    accounts: list[dict[str, Any]] = []
    against, unreadable = Against(), 0
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        rest = iter(uris)
        while some := list(islice(rest, FILES_AT_ONCE)):
            for one in pool.map(_read, some):
                accounts.append(one.accounts)
                against.update(one.against)
                unreadable += one.unreadable_clips
            accounts = [add_up(accounts)]
    return Judgement(accounts[0], against, unreadable)


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


def report_lines(job: str, report: dict[str, Any]) -> list[str]:
    """Return a threshold report as lines for people."""
    rows = [("rejected for", "alone", "only it")]
    rows += [(r, f"{n['alone']:,}", f"{n['only']:,}") for r, n in report["reasons"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"  {r:<{widths[0]}}  {a:>{widths[1]}}  {o:>{widths[2]}}" for r, a, o in rows]
    kept = f"{job}: {report['kept']:,} of {report['clips']:,} clips kept"
    return [kept, *lines] if report["reasons"] else [kept]


def _read(uri: str) -> Judgement:
    accounts, against, unreadable = json.loads((read_footer(uri).metadata or {})[_KEY.encode()])
    return Judgement(accounts, Against({tuple(r): count for r, count in against}), unreadable)
