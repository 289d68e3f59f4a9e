"""Duration: cut shots into clips that are neither too short nor too long."""

from typing import Annotated

from pydantic import Field, model_validator

from data_prep.types import Scene
from infra.config import Section

CUTTING = ("max_s", "edge_trim_frames")
"""The keys that decide where clips begin and end; to change one takes decoding."""


class DurationConfig(Section):
    """Which lengths of clip to keep."""

    min_s: Annotated[float, Field(ge=0)] = 2.0
    """Shorter clips are filtered."""
    max_s: Annotated[float, Field(gt=0)] = 60.0
    """Longer shots are split into consecutive windows of this length; nothing is cut away."""
    edge_trim_frames: Annotated[int, Field(ge=0)] = 0
    """Frames to leave out at both ends of a shot (dissolves reach over a cut)."""

    @model_validator(mode="after")
    def _ordered(self) -> "DurationConfig":
        if self.min_s > self.max_s:
            raise ValueError(f"min_s {self.min_s} is above max_s {self.max_s}")
        return self


def windows(scene: Scene, times_s: list[float], config: DurationConfig) -> list[Scene]:
    """Trim a shot and split it into consecutive windows of at most ``max_s``.

    The last window is what remains and may be short. Of a shot that the trim would swallow, the
    middle frame or two remain, so that it is still accounted for (as too short).

    Args:
        scene: the shot.
        times_s: when each of its frames begins, ``end_frame - start_frame`` values.
        config: the limits.
    """
    if len(times_s) != scene.end_frame - scene.start_frame:
        raise ValueError(f"{len(times_s)} times for frames {scene.start_frame}..{scene.end_frame}")
    trim = min(config.edge_trim_frames, (len(times_s) - 1) // 2)
    first, end = trim, len(times_s) - trim
    begins = [*times_s, scene.end_s]
    clips = []
    while first < end:
        stop = first + 1
        while stop < end and begins[stop + 1] - begins[first] <= config.max_s + 1e-6:
            stop += 1
        clips.append(
            Scene(scene.start_frame + first, scene.start_frame + stop, begins[first], begins[stop])
        )
        first = stop
    return clips


def score(clip: Scene) -> float:
    """Return the clip's length in seconds."""
    return clip.duration_s


def verdict(duration_s: float, config: DurationConfig) -> str | None:
    """Return why a clip of this length is filtered, or None to keep it."""
    return "too_short" if duration_s < config.min_s - 1e-6 else None
