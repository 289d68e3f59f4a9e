"""The versioned Arrow schemas of the tables that data preparation writes."""

from collections.abc import Iterable
from dataclasses import fields

import pyarrow as pa

from data_prep import phash
from data_prep.filters import SCORED
from data_prep.types import CropBox

CLIPS_VERSION = "4"
MANIFEST_VERSION = "3"


def _numbers(names: Iterable[str]) -> pa.StructType:
    return pa.struct([pa.field(name, pa.float64()) for name in names])


_CLIP = pa.struct(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("start_frame", pa.int64(), nullable=False),
        pa.field("end_frame", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        # As exact as measured, so that a verdict made again from the table is the same.
        pa.field("scores", _numbers(each.score.name for each in SCORED), nullable=False),
        pa.field("crop_box", _numbers(field.name for field in fields(CropBox))),
        pa.field("phash", pa.string()),
        pa.field("thumbnail", pa.binary()),
    ]
)

CLIP_TABLE = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string()),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("extra", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        # "video" or "image" by the bytes; None where they could not be read.
        pa.field("media", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("frames", pa.int64()),
        pa.field("codec", pa.string()),
        pa.field("transfer", pa.string()),  # of high dynamic range only
        pa.field("decoder", pa.string()),
        pa.field("cpu_seconds", pa.float64(), nullable=False),
        pa.field("peak_rss_bytes", pa.int64(), nullable=False),
        pa.field("clips", pa.list_(_CLIP), nullable=False),
    ],
    metadata={
        "longtake.schema": "clips",
        "longtake.version": CLIPS_VERSION,
        **{
            f"longtake.{each.score.name}_scale": each.score.scale
            for each in SCORED
            if each.score.scale is not None
        },
        "longtake.phash": phash.KIND,
    },
)
"""One row is one input video, whatever became of it; its clips are a list within the row."""

MANIFEST = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("extra", pa.string()),
        pa.field("damage", pa.string()),
        pa.field("size_bytes", pa.int64()),
    ],
    metadata={"longtake.schema": "manifest", "longtake.version": MANIFEST_VERSION},
)
"""The inputs of a run in their order."""
