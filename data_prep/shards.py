"""Pixel shards and token shards: versioned Parquet schemas, one row a clip.

Each file's footer tells how many clips (of pixels) or windows (of tokens) of each shape every row
group holds, by split, so that a loader knows what there is without reading a row.
"""

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.sample import Shape

VERSION = "3"
_SHAPES = "longtake.shapes"

Held = dict[str, dict[Shape, int]]
"""Split to shape to how many."""

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


FRAMES = _schema(
    "frames",
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
        self._held: list[Held] = []

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write `table` as one row group."""
        super().write_table(table, row_group_size or max(table.num_rows, 1))
        self._held.append(_held(table))

    def close(self) -> None:
        """Write the footer."""
        if self.is_open:
            footer = [
                {split: [[*shape, n] for shape, n in held.items()] for split, held in group.items()}
                for group in self._held
            ]
            self.add_key_value_metadata({_SHAPES: json.dumps(footer)})
        super().close()


def held(file: pq.ParquetFile) -> list[Held]:
    """Return what each row group holds, out of the footer of a file of :class:`Writer`."""
    groups = json.loads((file.metadata.metadata or {})[_SHAPES.encode()])
    return [
        {
            split: {(frames, height, width): n for frames, height, width, n in shapes}
            for split, shapes in group.items()
        }
        for group in groups
    ]


def _held(table: pa.Table) -> Held:
    counts: dict[str, Counter[Shape]] = {}
    shapes = _of_windows(table) if "windows" in table.schema.names else _of_clips(table)
    for split, row in zip(table["split"].to_pylist(), shapes, strict=True):
        counts.setdefault(split, Counter()).update(row)
    return {split: dict(sorted(held.items())) for split, held in sorted(counts.items())}


def _of_clips(table: pa.Table) -> list[list[Shape]]:
    columns = (table[name].to_pylist() for name in ("frames", "height", "width"))
    return [[shape] for shape in zip(*columns, strict=True)]


def _of_windows(table: pa.Table) -> list[list[Shape]]:
    rows = []
    for row in table["windows"]:
        frames, shapes = (row.values.field(name).to_pylist() for name in ("frames", "shape"))
        rows.append([(f, h, w) for f, (_, h, w) in zip(frames, shapes, strict=True)])
    return rows
