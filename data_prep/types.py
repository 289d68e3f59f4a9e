"""Small frozen records that the parts of data preparation hand to each other, no behaviour.

Shapes: T frames, H rows, W columns, C = 3 channels (red, green, blue).
Times are in seconds from the first frame that the film shows, whatever its container counts from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Status = Literal["kept", "filtered", "quarantined"]

Media = Literal["video", "image"]
"""What a file holds by its bytes, whatever its name says."""

UnreadableReason = Literal[
    "missing",
    "damaged_archive",
    "too_large",
    "empty",
    "not_a_video",
    "unsupported_container",
    "no_video_stream",
    "truncated",
    "decode_error",
    "decode_timeout",
    "decode_memory",
]


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video or image; claims, until the frames have been read."""

    duration_s: float
    """0 for an image."""
    fps: float
    """Mean frames per second; 0 for an image."""
    width_px: int
    """As shown: turned, with square pixels."""
    height_px: int
    frames: int
    """0 when the container does not say; of an animated image more than the one that is used."""
    codec: str
    """ffmpeg's name, such as ``"h264"``; of an image ``"jpeg"``, ``"png"`` or ``"webp"``."""
    media: Media = "video"
    transfer: str = ""
    """ffmpeg's name of a transfer of high dynamic range, ``"smpte2084"`` (PQ) or ``"arib-std-b67"``
    (HLG), which is not tone-mapped; empty for all others."""

    @property
    def short_side_px(self) -> int:
        """The smaller of width and height."""
        return min(self.width_px, self.height_px)


@dataclass(frozen=True)
class FrameChunk:
    """Consecutive frames."""

    first_frame: int
    """Index of ``frames_THWC[0]`` in the film."""
    timestamps_s: np.ndarray
    """float64 (T,), rising."""
    frames_THWC: np.ndarray
    """uint8."""
    breaks: tuple[int, ...] = ()
    """Places of frames that do not follow on the one before: after a gap, or lost frames."""


@dataclass(frozen=True)
class Scene:
    """A shot, or a window of one."""

    start_frame: int
    end_frame: int
    """Exclusive."""
    start_s: float
    end_s: float
    """Exclusive: when the frame after the last one begins."""

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class CropBox:
    """The part of the frame within its black bars, as fractions of its width and height, 0 to 1.

    Found on the analysed frame, so each edge is exact to 1/256 of the frame's longer side.
    """

    x: float
    """Left edge, from the left."""
    y: float
    """Upper edge, from the top."""
    width: float
    height: float


Scores = Mapping[str, float | None]
"""A clip's scores by their names (:mod:`data_prep.filters`); None: could not be measured."""
