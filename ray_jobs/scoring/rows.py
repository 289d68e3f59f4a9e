"""Row of clips on its way to the models: a few clips of one video, with a few small frames of each.

A row does not grow with the video: it holds at most :data:`ROW_BYTES` of frames, or one clip.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROW_BYTES = 32 << 20
Scores = dict[str, dict[str, float]]
"""clip_id -> score by name."""


@dataclass(frozen=True)
class Row:
    """Some clips of one video and their frames."""

    caption: str | None
    clips: list[dict[str, Any]]
    """``clip_id``, ``start_s``, ``end_s`` of each."""
    frames_NHWC: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))
    """uint8: those of the first clip, then those of the next."""
    counts: list[int] = field(default_factory=list)
    """Frames of each clip; 0 where they cannot be read."""
    failed: dict[str, str] = field(default_factory=dict)
    """clip_id -> why its frames cannot be read."""

    def scores(self, name: str, by_clip: list[float | None]) -> Scores:
        """Return a score under its name for each clip where it is known."""
        return {
            clip["clip_id"]: {name: round(value, 6)}
            for clip, value in zip(self.clips, by_clip, strict=True)
            if value is not None
        }

    def of_clips(self, by_frame: list[Any]) -> list[list[Any]]:
        """Return what belongs to each clip of what belongs to each frame."""
        ends = np.cumsum(self.counts)
        return [by_frame[end - count : end] for end, count in zip(ends, self.counts, strict=True)]


def clips_in_a_row(frames_per_clip: int, long_side_px: int) -> int:
    """Return how many clips a row holds."""
    return max(1, ROW_BYTES // (frames_per_clip * long_side_px * long_side_px * 3))


def merge(into: Scores, more: Scores) -> None:
    """Add scores to those that clips have."""
    for clip_id, scores in more.items():
        into.setdefault(clip_id, {}).update(scores)
