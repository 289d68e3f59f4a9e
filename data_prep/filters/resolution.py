"""Resolution: leave out videos that are too small to learn from."""

from typing import Annotated

from pydantic import Field

from data_prep.types import VideoInfo
from infra.config import Section


class ResolutionConfig(Section):
    """Which videos are large enough."""

    min_short_side_px: Annotated[int, Field(ge=0)] = 144
    """Videos whose smaller side is below this are filtered; 0 keeps all."""


def score(info: VideoInfo) -> float:
    """Return the smaller of the video's width and height in pixels."""
    return float(info.short_side_px)


def verdict(short_side_px: float, config: ResolutionConfig) -> str | None:
    """Return why a video of this size is filtered, or None to keep it."""
    return "low_resolution" if short_side_px < config.min_short_side_px else None
