"""Rows of a Parquet table of inputs, within bounds: a few kilobytes can stand for gigabytes.

Texts are read as dictionaries, so that one that many rows share is in memory once, and are counted
before they become values. What a footer claims of a row group is compared with what rows may hold
before any of it is decoded.
"""

from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.entries import ROW_BYTES_MAX
from infra import parquet
from infra.errors import UserError, one_line

CHUNK_BYTES_MAX = 1 << 30
"""Of a column in one row group, uncompressed: a file may keep it in one page, decoded at once."""
_ROWS_AT_ONCE = 64


def rows(
    uri: str, file: IO[bytes], check: Callable[[list[str]], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for every row of a table, a few at a time.

    Args:
        uri: of the table, for messages.
        file: with its bytes.
        check: is given the names of its columns.

    Raises:
        UserError: it is no Parquet, or a row holds more than ``ROW_BYTES_MAX``.
    """
    number = 0
    try:
        table = _opened(uri, file)
        check(table.schema_arrow.names)
        for batch in parquet.batches(table, _ROWS_AT_ONCE):
            for part in _bounded(uri, batch, number):
                for row in part.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except pa.ArrowException as error:
        raise UserError(f"manifest {uri}: not Parquet: {one_line(error)}") from None


def _opened(uri: str, file: IO[bytes]) -> pq.ParquetFile:
    metadata = pq.read_metadata(file)
    columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    first = 1
    for group in range(metadata.num_row_groups):
        held = metadata.row_group(group)
        for number in range(held.num_columns):
            _check_chunk(uri, first, held.num_rows, held.column(number))
        first += held.num_rows
    return pq.ParquetFile(
        file, metadata=metadata, read_dictionary=texts, buffer_size=1 << 20, pre_buffer=False
    )


def _check_chunk(uri: str, first: int, count: int, chunk: pq.ColumnChunkMetaData) -> None:
    """Refuse a column of a row group whose rows hold too much on average, or all together."""
    size = max(chunk.total_uncompressed_size, chunk.num_values)
    most = min(CHUNK_BYTES_MAX, max(count, 1) * ROW_BYTES_MAX)
    if size > most:
        raise UserError(
            f"manifest {uri}, rows {first} to {first + count - 1}: column "
            f"{one_line(chunk.path_in_schema, 60)} holds {size} bytes; allowed are "
            f"{ROW_BYTES_MAX} a row and {CHUNK_BYTES_MAX} in one row group"
        )


def _bounded(uri: str, batch: pa.RecordBatch, before: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts that become values of little memory; refuse a row that does not."""
    if sum(map(_bytes, batch.columns)) <= ROW_BYTES_MAX:
        yield batch
        return
    for place in range(batch.num_rows):
        row = batch.slice(place, 1)
        for name, column in zip(batch.schema.names, row.columns, strict=True):
            if (size := _bytes(column)) > ROW_BYTES_MAX:
                raise UserError(
                    f"manifest {uri}, row {before + place + 1}: column {one_line(name, 60)} holds "
                    f"{size} bytes; allowed are {ROW_BYTES_MAX} in a row"
                )
        yield row


def _bytes(values: pa.Array) -> int:
    """Return the bytes that the values of an array take each by itself."""
    if isinstance(values, pa.DictionaryArray):
        lengths = pc.binary_length(values.dictionary)  # pyright: ignore[reportAttributeAccessIssue]
        return pc.sum(lengths.take(values.indices)).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(values, pa.StructArray):
        return sum(map(_bytes, values.flatten()))
    if isinstance(values, pa.ListArray | pa.MapArray | pa.LargeListArray | pa.FixedSizeListArray):
        return _bytes(values.flatten())
    return values.nbytes
