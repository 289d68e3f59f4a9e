"""Duration: cut shots into clips that are neither too short nor too long.

An image has no duration, so it is never too short.
"""

import math
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from data_prep.filters.record import Filter, Limit, Score
from data_prep.types import Scene
from infra.config import Section

CUTTING = ("max_s", "stride_s", "trim_s")
"""The keys that decide where clips begin and end; to change one takes decoding."""
_SLACK_S = 1e-6


class DurationConfig(Section):
    """Which lengths of clip to keep."""

    min_s: Annotated[float, Field(ge=0)] = 2.0
    """Shorter clips are filtered."""
    max_s: Annotated[float, Field(gt=0)] = 60.0
    """Longer shots are split into windows of equal length, at most this; nothing is cut away."""
    stride_s: Annotated[float, Field(ge=0.1)] | None = None
    """Seconds from the start of one window to that of the next, at most max_s, so that windows
    overlap; None sets them end to end."""
    trim_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds to leave out at both ends of a shot (dissolves reach over a cut)."""

    @model_validator(mode="after")
    def _ordered(self) -> "DurationConfig":
        if self.min_s > self.max_s:
            raise ValueError(f"min_s {self.min_s} is above max_s {self.max_s}")
        if self.stride_s is not None and self.stride_s > self.max_s:
            raise ValueError(f"stride_s {self.stride_s} is above max_s {self.max_s}")
        return self


def windows(scene: Scene, times_s: list[float], config: DurationConfig) -> list[Scene]:
    """Trim a shot and split it into windows of at most ``max_s``.

    All windows of a shot are equally long but for a frame, from half of ``max_s`` on, and what two
    neighbours share of their length is what ``stride_s`` and ``max_s`` make it; so no short one
    is left over at the end. Only a frame that is shown for longer than ``max_s`` / 2 can make a
    window longer than ``max_s``. Of a shot that the trim would swallow, its middle frame remains,
    so that it is still accounted for (as too short).

    Args:
        scene: the shot.
        times_s: when each of its frames begins, ``end_frame - start_frame`` values.
        config: the limits.
    """
    if len(times_s) != scene.end_frame - scene.start_frame:
        raise ValueError(f"{len(times_s)} times for frames {scene.start_frame}..{scene.end_frame}")
    begins = np.array([*times_s, scene.end_s])
    inside_s = scene.start_s + config.trim_s - _SLACK_S, scene.end_s - config.trim_s + _SLACK_S
    first = int(np.searchsorted(begins, inside_s[0]))
    end = int(np.searchsorted(begins, inside_s[1], side="right")) - 1
    if first >= end:
        first = (len(times_s) - 1) // 2
        end = first + 1
    return [
        Scene(
            scene.start_frame + first + start,
            scene.start_frame + first + stop,
            float(begins[first + start]),
            float(begins[first + stop]),
        )
        for start, stop in _split(begins[first : end + 1], config)
    ]


def _split(begins_s: np.ndarray, config: DurationConfig) -> list[tuple[int, int]]:
    """Return the first and last (exclusive) frame of each window.

    Args:
        begins_s: when each frame begins, and last of all when the last one ends.
        config: the limits.
    """
    span_s, last = begins_s[-1] - begins_s[0], len(begins_s) - 1
    if span_s <= config.max_s + _SLACK_S:
        return [(0, last)]
    share = (config.stride_s or config.max_s) / config.max_s
    spans: list[tuple[int, int]] = []
    # Windows begin and end with frames; where that makes one too long, room is left for a frame.
    for most_s in (config.max_s, max(config.max_s / 2, config.max_s - np.diff(begins_s).max())):
        steps = math.ceil((span_s - most_s) / (share * most_s) - _SLACK_S)
        length_s = span_s / (1 + steps * share)
        starts_s = begins_s[0] + length_s * share * np.arange(steps + 1)
        starts = np.searchsorted(begins_s, starts_s - _SLACK_S)
        stops = np.searchsorted(begins_s, starts_s + length_s - _SLACK_S)
        stops[-1] = last
        spans = _whole(zip(starts.tolist(), stops.tolist(), strict=True))
        if all(begins_s[j] - begins_s[i] <= config.max_s + _SLACK_S for i, j in spans):
            break
    return spans


def _whole(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Leave out windows that are empty or lie within a neighbour, as frames of long show make."""
    stops = {start: stop for start, stop in spans if start < stop}
    starts = {stop: start for start, stop in reversed(stops.items())}
    return [(start, stop) for start, stop in stops.items() if starts[stop] == start]


def score(clip: Scene) -> float:
    """Return the clip's length in seconds."""
    return clip.duration_s


def _describe(limits: DurationConfig) -> str:
    stride = "end to end" if limits.stride_s is None else f"one begins every {limits.stride_s:g} s"
    return (
        f"{limits.min_s:g} to {limits.max_s:g} s (longer shots are split, {stride}"
        f"{' or sooner' if limits.stride_s is not None else ''}), {limits.trim_s:g} s trimmed"
    )


FILTER = Filter(
    name="duration",
    about="Clip length; also how long shots are split.",
    thresholds=DurationConfig,
    score=Score("duration_s", "clip", "Clip length", "seconds", low=0),
    below=Limit("min_s", "too_short", slack=_SLACK_S),
    describe=_describe,
    measure=lambda measured: None if measured.video.media == "image" else score(measured.clip),
    also_drawn=("max_s",),
)
