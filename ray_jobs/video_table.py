"""The table of an artifact of kind `videos`: one row a video, and what made it.

::

    videos.parquet                            the table, written last
    videos/000000/000000000.mp4, …            the films
    videos/000000/part-000000000.json, …      rows of the videos that were made side by side
"""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import parquet, storage
from infra.errors import UserError

Row = dict[str, Any]
VERSION = "3"
FOLDER = "videos"
HELD_OUT = "held_out"
"""`settings.kind` of film that training has not seen, beside what is generated."""
SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("prompt", pa.string()),
        ("prompts", pa.list_(pa.struct([("text", pa.string()), ("from_s", pa.float64())]))),
        ("file", pa.string()),
        ("seed", pa.int64()),
        ("frames", pa.int32()),
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("joins", pa.list_(pa.int32())),
        ("join_colour_drift", pa.list_(pa.float64())),
        ("trained_frames", pa.int32()),
        ("models", pa.map_(pa.string(), pa.string())),
        ("settings", pa.string()),
        ("seconds", pa.float64()),
    ],
    metadata={"longtake.schema": "videos", "longtake.version": VERSION},
)
"""`models` maps what a model is to the `identity` of its artifact; `settings` is the system's
section as JSON."""
_ROWS_AT_ONCE = 4096


def read(uri: str) -> Iterator[Row]:
    """Yield the rows of an artifact's table, in order, some thousands in memory at once.

    Raises:
        UserError: there is none, or of another version.
    """
    with storage.open_input(_table(uri)) as source:
        table = pq.ParquetFile(source)
        _check_version(uri, table)
        for batch in parquet.batches(table, _ROWS_AT_ONCE):
            yield from map(from_columns, batch.to_pylist())


def count(uri: str) -> int:
    """Return how many videos an artifact's table has; errors as :func:`read`."""
    with storage.open_input(_table(uri)) as source:
        table = pq.ParquetFile(source)
        _check_version(uri, table)
        return table.metadata.num_rows


def write(uri: str, rows: Iterable[Row]) -> int:
    """Write the table of the artifact at `uri` and return how many rows it has.

    Args:
        uri: of the artifact.
        rows: in order; a column that a row lacks is null.
    """
    rows, written = iter(rows), 0
    with storage.open_output(_table(uri)) as file, pq.ParquetWriter(file, SCHEMA) as writer:
        while some := [as_columns(row) for row in islice(rows, _ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(some, SCHEMA))
            written += len(some)
    return written


def film_file(video_id: str) -> str:
    """Return where a video lies below its artifact; `video_id` is its number, nine digits."""
    return f"{FOLDER}/{int(video_id) // 1000:06d}/{video_id}.mp4"


def film_uri(uri: str, row: Row) -> str:
    """Return the URI of a video of the artifact at `uri`.

    Raises:
        UserError: the row names a file outside of the artifact, or a link leads out of it.
    """
    film = storage.join(uri, row["file"])
    if storage.is_remote(uri):
        return film
    root, real = os.path.realpath(uri), os.path.realpath(film)
    if row["file"].startswith("/") or os.path.commonpath((root, real)) != root:
        raise UserError(f"{film}: leads out of {uri}; allowed are files below it")
    return film


def as_columns(row: Row) -> Row:
    """Return a row as the table holds it: `settings` as JSON."""
    return {
        **row,
        "models": list((row.get("models") or {}).items()),
        "settings": json.dumps(row.get("settings") or {}, ensure_ascii=False),
    }


def from_columns(row: Row) -> Row:
    """Return a row of the table as what it says: `models` as a dict, `settings` as a tree."""
    return {
        **row,
        "models": dict(row["models"] or ()),
        "settings": json.loads(row["settings"] or "{}"),
    }


def _table(uri: str) -> str:
    return storage.join(uri, "videos.parquet")


def _check_version(uri: str, table: pq.ParquetFile) -> None:
    version = (table.schema_arrow.metadata or {}).get(b"longtake.version", b"none").decode()
    if version != VERSION:
        raise UserError(
            f"{_table(uri)}: version {version}; readable is {VERSION}: generate the videos anew"
        )
