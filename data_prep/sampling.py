"""Sampling of clips: rate and sizes, windows, the held-out split, and which clips share a part."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field

from infra.config import Section

VALIDATION = "validation"
TRAIN = "train"


class WindowConfig(Section):
    """Windows of one length, taken from every clip that is long enough."""

    frames: Annotated[int, Field(ge=1)] = 17
    """A count that the codec makes; `tokenize` refuses others and names the nearest."""
    stride: Annotated[int, Field(ge=1)] = 17
    """Frames from the start of one window to the start of the next."""


class SizeConfig(Section):
    """A size that clips are brought to: scaled until they cover it, and their centre cut out."""

    height_px: Annotated[int, Field(ge=8, le=2160)] = 128
    width_px: Annotated[int, Field(ge=8, le=4096)] = 128


def nearest(aspect_ratio: float, sizes: Sequence[SizeConfig]) -> SizeConfig:
    """Return the size that is nearest in aspect, by the ratio of both; the first on ties.

    Args:
        aspect_ratio: width divided by height, above 0.
        sizes: at least one.
    """
    return min(sizes, key=lambda s: abs(math.log(aspect_ratio * s.height_px / s.width_px)))


class FrameSettings(Section):
    """How clips become frames."""

    fps: Annotated[float, Field(gt=0, le=240)] = 6.5
    """Frames a second after resampling; 65 frames then cover 10 s (Loong, section 3.1)."""
    sizes: Annotated[tuple[SizeConfig, ...], Field(min_length=1)] = (SizeConfig(),)
    """Several are buckets by aspect: a clip gets the one whose aspect is nearest its own, and
    training draws each batch from one of them."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Clips held out, chosen by their ids."""


def frames_in(start_s: float, end_s: float, fps: float) -> int:
    """Return how many frames at `fps` a span has: at least 1."""
    return max(1, int((end_s - start_s) * fps + 1e-6))


def part_of(begin: int, size: int, total: int, parts: int) -> int:
    """Return the part, from 0, of what lies at `begin` in `total` bytes that `parts` share evenly.

    The middle decides, so that no part is further from the mean than by what is largest in it.

    Args:
        begin: bytes before it.
        size: its own bytes, above 0.
        total: at least ``begin + size``.
        parts: at least 1.
    """
    return (2 * begin + size) * parts // (2 * total)


@dataclass(frozen=True)
class HeldOut:
    """Which clips are held out: about `share` of all, chosen by their ids alone.

    A clip keeps its side when the corpus grows. Of two clips or more, at least one is held out when
    `share` is above 0, so that a small corpus can be validated too.
    """

    share: float
    only: str | None = None
    """The clip that is held out where the share chooses none."""

    @classmethod
    def of(cls, share: float, clips: int, lowest: str | None) -> Self:
        """Return the choice among `clips` clips, of which `lowest` has the lowest position."""
        chooses = lowest is None or position(lowest) < share
        return cls(share, None if chooses or not share or clips < 2 else lowest)

    def split(self, clip_id: str) -> str:
        """Return the split of a clip."""
        chosen = position(clip_id) < self.share or clip_id == self.only
        return VALIDATION if chosen else TRAIN


def position(clip_id: str) -> float:
    """Return where a clip lies in [0, 1), by its id alone."""
    return int(hashlib.sha256(clip_id.encode()).hexdigest()[:8], 16) / 2**32


def window_starts(clip_frames: int, window: WindowConfig) -> list[int]:
    """Return the first frame of every window of a clip; empty when the clip is too short."""
    return list(range(0, clip_frames - window.frames + 1, window.stride))
