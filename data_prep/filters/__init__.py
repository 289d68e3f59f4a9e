"""Filters: one file each, with a config, a ``score`` and a ``verdict`` (a reason, or None to keep).

Scores are stored for every clip, kept or not, so a threshold can be moved without decoding again.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from data_prep.filters import brightness, duration, motion, resolution
from data_prep.filters.brightness import BrightnessConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.types import Scores
from infra.config import Section


class FiltersConfig(Section):
    """The thresholds of all filters."""

    duration: DurationConfig = Field(default_factory=DurationConfig)
    """Clip length; also how long shots are split."""
    resolution: ResolutionConfig = Field(default_factory=ResolutionConfig)
    """Size of the video."""
    motion: MotionConfig = Field(default_factory=MotionConfig)
    """Stills and restless footage."""
    brightness: BrightnessConfig = Field(default_factory=BrightnessConfig)
    """Darkness."""


def reasons(scores: Scores, config: FiltersConfig) -> tuple[str, ...]:
    """Return every reason against a clip, in a fixed order; empty to keep it."""
    verdicts = (
        resolution.verdict(scores.short_side_px, config.resolution),
        duration.verdict(scores.duration_s, config.duration),
        brightness.verdict(scores.brightness, config.brightness),
        motion.verdict(scores.motion, config.motion),
    )
    return tuple(reason for reason in verdicts if reason is not None)


def verdict(scores: Scores, config: FiltersConfig) -> str | None:
    """Return the first of a clip's :func:`reasons`, or None to keep it."""
    return next(iter(reasons(scores, config)), None)


def verdict_on_video(clips: Sequence[str | None]) -> str | None:
    """Return the commonest verdict on a video's clips, or None when one of them is kept.

    Args:
        clips: the verdict on each clip; at least one.
    """
    rejected = Counter(reason for reason in clips if reason is not None)
    if rejected.total() < len(clips):
        return None
    # Ties go by name, so that the reason does not depend on the order of clips.
    return min(rejected, key=lambda reason: (-rejected[reason], reason))
