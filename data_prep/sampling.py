"""Sampling of clips: the held-out split, sizes, windows, and which clips share a part."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Annotated

from pydantic import Field, field_validator

from infra.config import Section

VALIDATION = "validation"
TRAIN = "train"


class WindowConfig(Section):
    """Windows of one length, taken from every clip that is long enough."""

    frames: Annotated[int, Field(ge=1)] = 17
    """1 + 4k frames, since the causal tokenizer codes the first frame by itself."""
    stride: Annotated[int, Field(ge=1)] = 17
    """Frames from the start of one window to the start of the next."""

    @field_validator("frames")
    @classmethod
    def _whole_latents(cls, frames: int) -> int:
        if (frames - 1) % 4:
            raise ValueError("allowed are 1, 5, 9, … frames (1 + 4k)")
        return frames


class SizeConfig(Section):
    """A size that clips are brought to: scaled until they cover it, and their centre cut out."""

    height_px: Annotated[int, Field(ge=8, le=2160, multiple_of=8)] = 128
    width_px: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 128


def nearest(aspect_ratio: float, sizes: Sequence[SizeConfig]) -> SizeConfig:
    """Return the size that is nearest in aspect, by the ratio of both; the first on ties.

    Args:
        aspect_ratio: width divided by height, above 0.
        sizes: at least one.
    """
    return min(sizes, key=lambda s: abs(math.log(aspect_ratio * s.height_px / s.width_px)))


def even_parts(durations_s: Sequence[float], part_s: float) -> list[int]:
    """Return the part of each clip, from 0 in their order, so that parts are equally long.

    None is further from the mean than its longest clip, and a part may be left out.

    Args:
        durations_s: of the clips, above 0.
        part_s: seconds in a part, about.
    """
    ends = [0.0, *accumulate(durations_s)]
    count = max(1, round(ends[-1] / part_s))
    middles = [(start + end) / 2 for start, end in pairwise(ends)]
    return [min(int(middle * count / ends[-1]), count - 1) for middle in middles]


def held_out(clip_ids: Iterable[str], share: float) -> set[str]:
    """Return the clips to hold out: about `share` of all, chosen by their ids alone.

    A clip keeps its side when the corpus grows. Of two clips or more, at least one is held out
    when `share` is above 0, so that a small corpus can be validated too.
    """
    positions = {clip: _position(clip) for clip in clip_ids}
    chosen = {clip for clip, position in positions.items() if position < share}
    if share > 0 and not chosen and len(positions) > 1:
        chosen = {min(positions, key=lambda clip: positions[clip])}
    return chosen


def _position(clip_id: str) -> float:
    return int(hashlib.sha256(clip_id.encode()).hexdigest()[:8], 16) / 2**32


def window_starts(clip_frames: int, window: WindowConfig) -> list[int]:
    """Return the first frame of every window of a clip; empty when the clip is too short."""
    return list(range(0, clip_frames - window.frames + 1, window.stride))
