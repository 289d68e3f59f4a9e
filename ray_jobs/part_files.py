"""Files of one part: a Parquet file with row groups cut by bytes, and the units that failed."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.index import footer_bytes
from infra import storage

Row = dict[str, Any]
Piece = TypeVar("Piece")
ROW_GROUP_BYTES = 16 << 20
FOOTER_BYTES = 64 << 10
"""Read from a file's end at once, which holds the whole footer of most files."""
FILES_AT_ONCE = 32
"""Small files that are read at the same time; each of them mostly waits for storage."""


def part_path(folder: str, part: int, suffix: str = ".parquet") -> str:
    """Return ``folder/000000/part-000000000.parquet``: names sort at any count.

    1,000 parts share a folder, so that listing one takes a single page of an object store.

    Raises:
        ValueError: a part outside 0 ≤ part < 10⁹.
    """
    if not 0 <= part < 10**9:
        raise ValueError(f"part {part}; allowed are 0 to 10^9 - 1")
    return f"{folder}/{part // 1000:06d}/part-{part:09d}{suffix}"


def row_groups(
    pieces: Iterable[Piece], bytes_of: Callable[[Piece], int], most_bytes: int = ROW_GROUP_BYTES
) -> Iterator[list[Piece]]:
    """Yield pieces of a file together, as many as reach `most_bytes`; fewer at the end."""
    group: list[Piece] = []
    size_bytes = 0
    for piece in pieces:
        group.append(piece)
        size_bytes += bytes_of(piece)
        if size_bytes >= most_bytes:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def write_tables(
    uri: str,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    footer: Callable[[], dict[str, str]] | None = None,
) -> int:
    """Write a part's Parquet file from its rows, holding little more than one row group of them.

    Args:
        uri: of the file, which appears whole or not at all.
        schema: of the rows.
        tables: the rows in order, in tables of any length.
        footer: called after the last row; returns what the file's metadata is to hold.

    Returns:
        How many rows were written.
    """
    count = 0
    with (
        storage.open_output(uri) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for group in row_groups(tables, lambda table: table.nbytes):
            table = pa.concat_tables(group)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            count += table.num_rows
        if footer is not None:
            writer.add_key_value_metadata(footer())
    return count


def write_rows(uri: str, schema: pa.Schema, rows: Iterable[Row]) -> int:
    """Write a part's Parquet file from rows as dicts; see :func:`write_tables`."""
    return write_tables(uri, schema, (pa.Table.from_pylist([row], schema) for row in rows))


def read_footer(uri: str, size_bytes: int | None = None) -> pq.FileMetaData:
    """Return the metadata of a Parquet file; most files take one read of their end.

    Args:
        uri: of the file.
        size_bytes: of the file, as listings tell it; None asks storage, a request more.
    """
    if size_bytes is not None:
        return pq.read_metadata(pa.BufferReader(footer_bytes(uri, size_bytes)))
    with storage.open_input(uri, FOOTER_BYTES) as file:
        return pq.read_metadata(file)


def write_failures(output_uri: str, part: int, failures: list[Row]) -> None:
    """Write the units of a part that failed, if any; to be called before its main file appears."""
    if failures:
        storage.write_json(storage.join(output_uri, part_path("failed", part, ".json")), failures)


def failures(output_uri: str) -> Iterator[Row]:
    """Yield every unit that failed, in the order of parts."""
    files = (file for file, _ in storage.walk(storage.join(output_uri, "failed"), (".json",)))
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        while some := list(islice(files, FILES_AT_ONCE)):
            for text in pool.map(storage.read_text, some):
                yield from json.loads(text)
