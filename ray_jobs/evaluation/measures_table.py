"""The table of an artifact of kind `measures`: one row a film, with its figures and conventions."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import parquet, storage
from infra.errors import UserError

Record = dict[str, Any]
VERSION = "2"
FILE = "measures.parquet"
FIGURES = (
    *("motion", "sharpness", "sharpness_ratio", "frame_correlation"),
    *("brightness_change", "colour_drift", "join_colour_drift"),
)
"""The columns that hold one number a film; null where it was not measured."""
_WINDOW = pa.struct(
    [
        (name, pa.float64())
        for name in (
            *("start_s", "end_s", "motion", "brightness", "sharpness"),
            *("colour_distance", "frame_correlation"),
        )
    ]
)
SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("frames", pa.int32()),
        ("fps", pa.float64()),
        ("height_px", pa.int32()),
        ("width_px", pa.int32()),
        ("joins", pa.list_(pa.int32())),
        ("trained_frames", pa.int32()),
        ("settings", pa.string()),
        *((name, pa.float64()) for name in FIGURES),
        ("windows", pa.list_(_WINDOW)),
        ("conventions", pa.string()),
        ("problem", pa.string()),
        ("strip", pa.list_(pa.binary())),
    ],
    metadata={"longtake.schema": "measures", "longtake.version": VERSION},
)
"""`settings` and `conventions` are JSON; `source` is the input that `file` lies below, and empty
where `file` is a URI; `problem` says why a film could not be read; `strip` holds JPEG frames."""


def read(uri: str, *, strips: bool = True) -> Iterator[Record]:
    """Yield the rows of an artifact's table, in order, with few in memory at once.

    Args:
        uri: of the artifact.
        strips: with the JPEG frames.

    Raises:
        UserError: there is none, or of another version.
    """
    columns = [name for name in SCHEMA.names if strips or name != "strip"]
    file = storage.join(uri, FILE)
    with storage.open_input(file) as source:
        table = pq.ParquetFile(source)
        version = (table.schema_arrow.metadata or {}).get(b"longtake.version", b"none").decode()
        if version != VERSION:
            raise UserError(f"{file}: version {version}; readable is {VERSION}: measure anew")
        for batch in parquet.batches(table, 256, columns):
            yield from map(from_columns, batch.to_pylist())


def as_columns(records: Iterable[Record]) -> pa.Table:
    """Return records as a table of `SCHEMA`."""
    rows = [
        {
            **record,
            "settings": json.dumps(record["settings"], ensure_ascii=False),
            "conventions": json.dumps(record["conventions"], ensure_ascii=False),
        }
        for record in records
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def from_columns(row: Record) -> Record:
    """Return a row of the table as the record that it was."""
    return {
        **row,
        "settings": json.loads(row["settings"]),
        "conventions": json.loads(row["conventions"]),
    }
