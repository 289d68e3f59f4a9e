"""The versioned Arrow schemas of the tables that data preparation writes."""

import pyarrow as pa

from data_prep.filters.motion import SCALE

VERSION = "1"

_CLIP = pa.struct(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("start_frame", pa.int64(), nullable=False),
        pa.field("end_frame", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field(
            "scores",
            pa.struct(
                [
                    pa.field("duration_s", pa.float64()),
                    pa.field("short_side_px", pa.float64()),
                    pa.field("motion", pa.float64()),
                    pa.field("brightness", pa.float64()),
                ]
            ),
            nullable=False,
        ),
        pa.field("thumbnail", pa.binary()),
    ]
)

CLIP_TABLE = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string()),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("frames", pa.int64()),
        pa.field("codec", pa.string()),
        pa.field("decoder", pa.string()),
        pa.field("cpu_seconds", pa.float64(), nullable=False),
        pa.field("peak_rss_bytes", pa.int64(), nullable=False),
        pa.field("clips", pa.list_(_CLIP), nullable=False),
    ],
    metadata={
        "longtake.schema": "clips",
        "longtake.version": VERSION,
        "longtake.motion_scale": SCALE,
    },
)
"""One row is one input video, whatever became of it; its clips are a list within the row."""

MANIFEST = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
    ],
    metadata={"longtake.schema": "manifest", "longtake.version": VERSION},
)
"""The inputs of a run in their order."""
