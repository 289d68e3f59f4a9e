"""Which clips are held out, and which windows of a clip become token sequences."""

import hashlib
from collections.abc import Iterable
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
