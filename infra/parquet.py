"""Streaming reads of Parquet: some rows of one row group at a time, whatever the file's size.

``ParquetFile.iter_batches`` over a whole file fetches ahead and keeps what it fetched until its
end, so that a table of ten million rows lies in memory as it lies on the disk.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def batches(
    file: pq.ParquetFile, rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows in order; what was read of a row group goes with it.

    Args:
        file: opened.
        rows: in a batch at most.
        columns: names or paths of what to read; None reads all.
    """
    for group in range(file.num_row_groups):
        yield from file.iter_batches(rows, row_groups=[group], columns=columns)
