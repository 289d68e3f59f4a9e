"""What the parts of data preparation hand to each other: small frozen records, no behaviour.

Shapes: T frames, H rows, W columns, C = 3 channels (red, green, blue).
Times are in seconds from the first frame that the film shows, whatever its container counts from.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Status = Literal["kept", "filtered", "quarantined"]

UnreadableReason = Literal[
    "missing",
    "damaged_archive",
    "too_large",
    "empty",
    "not_a_video",
    "no_video_stream",
    "truncated",
    "decode_error",
    "decode_timeout",
    "decode_memory",
]


@dataclass(frozen=True)
class VideoInfo:
    """What a container says of its video; claims, until the frames have been read."""

    duration_s: float
    fps: float
    """Mean frames per second."""
    width_px: int
    """As shown: turned, with square pixels."""
    height_px: int
    frames: int
    """0 when the container does not say."""
    codec: str
    """ffmpeg's name, such as ``"h264"``."""

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


@dataclass(frozen=True)
class Scores:
    """What is known of a clip; stored whether or not it is kept. None: could not be measured."""

    duration_s: float
    short_side_px: float
    aspect_ratio: float
    """Width divided by height."""
    fps: float
    """Mean frames per second of the video."""
    black_share: float | None
    """Share of samples that are nearly black, 0 to 1; see ``filters.black.SCALE``."""
    brightness: float | None
    """Mean luma, 0 to 255."""
    letterbox_share: float | None
    """Share of the frame that is black bars, 0 to 1; see ``filters.letterbox.SCALE``."""
    motion: float | None
    """Mean absolute luma difference between samples, 0 to 255; see ``filters.motion.SCALE``."""
    sharpness: float | None
    """Median variance of the Laplacian of luma, from 0; see ``filters.blur.SCALE``."""
    unsafe: float | None = None
    """Highest probability of a frame, 0 to 1; this and the next three by ``ray_jobs.score``, see
    ``filters.safety.SCALE``."""
    text_area: float | None = None
    """Share of the frame within text boxes, 0 to 1; see ``filters.text.SCALE``."""
    caption_similarity: float | None = None
    """Cosine of caption and frames, -1 to 1; see ``filters.similarity.SCALE``."""
    aesthetic: float | None = None
    """Rating of frames by a linear head; see ``filters.aesthetic.SCALE``."""
