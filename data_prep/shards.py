"""Pixel shards and token shards: versioned Parquet schemas, one row a clip."""

import pyarrow as pa

VERSION = "1"

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
