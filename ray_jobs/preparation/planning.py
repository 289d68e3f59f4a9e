"""Planning of a preparation: the inputs, cut into parts of about ten minutes of CPU.

What a video costs is estimated from its size alone, 0.3 s and 1 s for every 2 MB, which listings
and the indexes of archives tell; only rows of tables are asked for, one request each. A part is
consecutive videos that cost `PART_S` together. A corpus that would make fewer than `LEAST_PARTS`
is cut finer, down to a video a part, so that it is done in parallel; a video that costs a whole
part is one by itself. So the cut depends on the inputs alone.
"""

import tempfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep import manifest
from data_prep.projection import Sample
from data_prep.schemas import MANIFEST
from infra import storage
from infra.log import logger
from ray_jobs import unit_tables

PART_S = 600
LEAST_PARTS = 1000
VIDEO_MS = 300
BYTES_PER_MS = 2000
PART_TEXT_BYTES = 32 << 20
"""The most text that the rows of one part hold, about."""
UNITS = "units"


class PartCut:
    """Cuts a stream of inputs into parts.

    Args:
        total_ms: CPU-milliseconds that all inputs are estimated to take (:func:`costs_ms`).
    """

    def __init__(self, total_ms: int) -> None:
        self._part_ms = min(PART_S * 1000, total_ms // LEAST_PARTS)
        self._open: list[pa.Table] = []
        self._open_ms = self._open_bytes = 0

    def push(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Take the next rows of schema ``MANIFEST``; yield parts that are complete."""
        begins = 0
        for n, (cost, text) in enumerate(zip(costs_ms(rows), _text_bytes(rows), strict=True)):
            alone = cost >= self._part_ms
            if alone and (self._open or begins < n):
                yield self._closed(rows.slice(begins, n - begins))
                begins = n
            self._open_ms += cost
            self._open_bytes += text
            if self._open_ms >= self._part_ms or self._open_bytes >= PART_TEXT_BYTES:
                yield self._closed(rows.slice(begins, n + 1 - begins))
                begins = n + 1
        if begins < rows.num_rows:
            self._open.append(rows.slice(begins))

    def rest(self) -> Iterator[pa.Table]:
        """Yield the last part, if rows are left over."""
        if self._open:
            yield self._closed(MANIFEST.empty_table())

    def _closed(self, rows: pa.Table) -> pa.Table:
        part = pa.concat_tables([*self._open, rows])
        self._open, self._open_ms, self._open_bytes = [], 0, 0
        return part


def costs_ms(rows: pa.Table) -> list[int]:
    """Return the CPU-milliseconds that each row is estimated to take; size unknown counts as 0."""
    return [VIDEO_MS + (size or 0) // BYTES_PER_MS for size in rows["size_bytes"].to_pylist()]


def _text_bytes(rows: pa.Table) -> list[int]:
    sizes = [
        pc.fill_null(pc.binary_length(rows[name]), 0)  # pyright: ignore[reportAttributeAccessIssue]
        for name in ("uri", "caption", "extra")
    ]
    return [sum(row) for row in zip(*(column.to_pylist() for column in sizes), strict=True)]


def plan_parts(
    inputs: tuple[str, ...], output_uri: str, sample: int, seed: int
) -> unit_tables.Plan:
    """Write what each part has to do, unless an earlier run has; return the plan.

    The rows wait in a temporary file on the local disk until their total is known. The plan's
    facts have ``sample``: part and row of up to `sample` videos drawn by `seed`.

    Raises:
        UserError: as :func:`data_prep.manifest.stream`.
    """
    folder = storage.join(output_uri, UNITS)
    if plan := unit_tables.plan_of(folder):
        return plan
    counts, drawn, total_ms = manifest.Counts(), Sample(sample, seed), 0
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(file, MANIFEST, compression="zstd") as spool:
            for batch in manifest.stream(inputs, counts, leave_out=output_uri):
                rows = pa.Table.from_batches([manifest.with_sizes(batch)])
                first = counts.inputs - rows.num_rows
                drawn.offer(rows["source_id"].to_pylist(), range(first, counts.inputs))
                total_ms += sum(costs_ms(rows))
                spool.write_table(rows)
        for note in counts.notes:
            logger.info(f"prepare: {note}")
        file.seek(0)
        cut = PartCut(total_ms)
        with unit_tables.Writer(folder, MANIFEST) as table:
            places: dict[int, tuple[int, int]] = {}
            first = 0
            for units in _parts(pq.ParquetFile(file), cut):
                part = table.add(units)
                inside = range(first, first + units.num_rows)
                places |= {n: (part, n - first) for n in drawn.drawn if n in inside}
                first += units.num_rows
            table.facts = {"sample": [places[n] for n in drawn.drawn]}
    return table.plan


def _parts(spool: pq.ParquetFile, cut: PartCut) -> Iterator[pa.Table]:
    for group in range(spool.num_row_groups):
        yield from cut.push(spool.read_row_group(group).cast(MANIFEST))
    yield from cut.rest()
