"""The table of an artifact of kind `videos`: what `generate` and `upscale` say of each video."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from infra.errors import UserError

Row = dict[str, Any]
VERSION = "2"
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
        ("top_k", pa.int32()),
        ("temperature", pa.float64()),
        ("guidance_scale", pa.float64()),
        ("reencode_frames", pa.int32()),
        ("strategy", pa.string()),
        ("match_colour", pa.bool_()),
        ("tokenizer_fingerprint", pa.string()),
        ("autoregressive_fingerprint", pa.string()),
        ("seconds", pa.float64()),
    ],
    metadata={"longtake.schema": "videos", "longtake.version": VERSION},
)


def read(uri: str) -> list[Row]:
    """Return the rows of an artifact's table, in order.

    Raises:
        UserError: there is none, or of another version.
    """
    file = storage.join(uri, "videos.parquet")
    with storage.open_input(file) as source:
        table = pq.read_table(source)
    version = (table.schema.metadata or {}).get(b"longtake.version", b"none").decode()
    if version != VERSION:
        raise UserError(f"{file}: version {version}; readable is {VERSION}")
    return table.to_pylist()


def write(uri: str, rows: list[Row]) -> None:
    """Write the table of the artifact at `uri`; keys that are no column are left out."""
    with storage.open_output(storage.join(uri, "videos.parquet")) as file:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)


def record(uri: str, video_id: str) -> str:
    """Return the URI of the record, written last, that says that a video is whole."""
    return storage.join(uri, "videos", f"{video_id}.json")
