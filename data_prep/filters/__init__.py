"""Filters: one file each, with a config, a ``score`` and a ``verdict`` (a reason, or None to keep).

Scores are stored for every clip, kept or not, so a threshold can be moved without decoding again.
"""

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


def verdict(scores: Scores, config: FiltersConfig) -> str | None:
    """Return the first reason, in a fixed order, why a clip is filtered; None to keep it."""
    return (
        resolution.verdict(scores.short_side_px, config.resolution)
        or duration.verdict(scores.duration_s, config.duration)
        or brightness.verdict(scores.brightness, config.brightness)
        or motion.verdict(scores.motion, config.motion)
    )
