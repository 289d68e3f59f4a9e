"""Pixel shards and token shards: versioned Parquet schemas, one row a clip.

Each file's footer tells how many clips (of pixels) or windows (of tokens) of each length every row
group holds, by split, so that a loader knows what there is without reading a row.
"""

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VERSION = "2"
_LENGTHS = "longtake.lengths"

Lengths = dict[str, dict[int, int]]
"""Split to frames to how many."""

_PROVENANCE = [
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("video_id", pa.string(), nullable=False),
    pa.field("caption", pa.string()),
    pa.field("split", pa.string(), nullable=False),  # "train" or "validation"
    pa.field("start_s", pa.float64(), nullable=False),
    pa.field("end_s", pa.float64(), nullable=False),
    pa.field("fps", pa.float64(), nullable=False),  # of the frames below, not of the source
    pa.field("motion", pa.float32()),
    pa.field("frames", pa.int32(), nullable=False),
]

WINDOW = pa.struct(
    [
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("start_frame", pa.int32(), nullable=False),
        pa.field("shape", pa.list_(pa.int32()), nullable=False),  # latent (T, H, W)
        pa.field("ids", pa.list_(pa.int32()), nullable=False),  # T*H*W codes, raster order
    ]
)


def _schema(name: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"longtake.schema": name, "longtake.version": VERSION})


PIXELS = _schema(
    "pixels",
    [
        *_PROVENANCE,
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("pixels", pa.binary(), nullable=False),  # uint8, frames*height*width*3, RGB
    ],
)
"""A clip's frames at model resolution and rate: what tokenizers train on."""

TOKENS = _schema(
    "tokens",
    [
        *_PROVENANCE,
        pa.field("text_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("windows", pa.list_(WINDOW), nullable=False),
        pa.field("tokenizer_fingerprint", pa.string(), nullable=False),
    ],
)
"""A clip's windows as codes: what autoregressive models train on."""


def check(schema: pa.Schema, expected: pa.Schema, file: str) -> None:
    """Raise ValueError unless a shard's schema is the expected one, by name and version."""
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    wanted = {k.decode(): v.decode() for k, v in (expected.metadata or {}).items()}
    for key, value in wanted.items():
        if metadata.get(key) != value:
            raise ValueError(f"{file}: {key} is {metadata.get(key)!r}; expected {value!r}")
    missing = [name for name in expected.names if name not in schema.names]
    if missing:
        raise ValueError(f"{file}: columns missing: {', '.join(missing)}")


class Writer(pq.ParquetWriter):
    """Write shards, a row group a table, and what they hold into the footer."""

    def __init__(self, where: Any, schema: pa.Schema) -> None:
        super().__init__(where, schema, compression="zstd")
        self._lengths: list[Lengths] = []

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write `table` as one row group."""
        super().write_table(table, row_group_size or max(table.num_rows, 1))
        self._lengths.append(_lengths(table))

    def close(self) -> None:
        """Write the footer."""
        if self.is_open:
            self.add_key_value_metadata({_LENGTHS: json.dumps(self._lengths)})
        super().close()


def lengths(file: pq.ParquetFile) -> list[Lengths]:
    """Return what each row group holds, out of the footer of a file of :class:`Writer`."""
    counts = json.loads((file.metadata.metadata or {})[_LENGTHS.encode()])
    return [
        {split: {int(f): n for f, n in held.items()} for split, held in group.items()}
        for group in counts
    ]


def _lengths(table: pa.Table) -> Lengths:
    held: dict[str, Counter[int]] = {}
    windows = "windows" in table.schema.names
    column = table["windows"] if windows else table["frames"]
    for split, value in zip(table["split"].to_pylist(), column, strict=True):
        frames = value.values.field("frames").to_pylist() if windows else [value.as_py()]
        held.setdefault(split, Counter()).update(frames)
    return {split: dict(sorted(counts.items())) for split, counts in sorted(held.items())}
