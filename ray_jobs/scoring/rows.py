"""Rows that go from stage to stage: a few clips of one video, with a few small frames of each.

In Arrow a row is ``about`` (JSON: what is in the row and what is known of it) and ``frames`` (their
bytes, or nothing). Neither grows with the video: a row holds at most :data:`ROW_BYTES` of frames,
or one clip.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

ROW_BYTES = 32 << 20
SCHEMA = pa.schema([pa.field("about", pa.string()), pa.field("frames", pa.large_binary())])


@dataclass
class Row:
    """Some clips of one video on their way; each stage adds to ``scores``."""

    name: str
    """Of the file that the row's scores end up in."""
    uri: str
    caption: str | None
    clips: list[dict[str, Any]]
    """``clip_id``, ``start_s``, ``end_s`` of each."""
    shape: tuple[int, ...] = (0, 0, 0, 3)
    """Of all frames: those of the first clip, then those of the next."""
    counts: list[int] = field(default_factory=list)
    """Frames of each clip; 0 where they cannot be read."""
    failed: dict[str, str] = field(default_factory=dict)
    """clip_id -> why its frames cannot be read."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """clip_id -> score by name."""

    def add(self, name: str, by_clip: list[float | None]) -> None:
        """Put down a score of each clip; None is not known."""
        for clip, value in zip(self.clips, by_clip, strict=True):
            if value is not None:
                self.scores.setdefault(clip["clip_id"], {})[name] = round(value, 6)

    def of_clips(self, by_frame: list[Any]) -> list[list[Any]]:
        """Return what belongs to each clip of what belongs to each frame."""
        ends = np.cumsum(self.counts)
        return [by_frame[end - count : end] for end, count in zip(ends, self.counts, strict=True)]


def clips_in_a_row(frames_per_clip: int, long_side_px: int) -> int:
    """Return how many clips a row holds."""
    return max(1, ROW_BYTES // (frames_per_clip * long_side_px * long_side_px * 3))


def to_arrow(rows: list[tuple[Row, bytes]]) -> pa.Table:
    """Return rows and the bytes of their frames as Arrow."""
    about = [json.dumps(asdict(row)) for row, _ in rows]
    return pa.table({"about": about, "frames": [data for _, data in rows]}, schema=SCHEMA)


def from_arrow(table: pa.Table) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield rows and their frames, uint8 (frames, H, W, 3), which are views."""
    for about, data in zip(table["about"], table["frames"], strict=True):
        row = Row(**json.loads(about.as_py()))
        yield row, np.frombuffer(data.as_buffer(), np.uint8).reshape(row.shape)


def with_scores(table: pa.Table, rows: list[Row]) -> pa.Table:
    """Return the table with what its rows now are; the frames are not copied."""
    about = pa.array([json.dumps(asdict(row)) for row in rows], pa.string())
    return table.set_column(0, SCHEMA.field("about"), about)
