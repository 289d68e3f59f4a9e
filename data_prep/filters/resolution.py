"""Resolution: leave out videos that are too small to learn from."""

from typing import Annotated

from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from data_prep.types import VideoInfo
from infra.config import Section


class ResolutionConfig(Section):
    """Which videos are large enough."""

    min_short_side_px: Annotated[int, Field(ge=0)] = 144
    """Videos whose smaller side is below this are filtered; 0 keeps all."""


def score(info: VideoInfo) -> float:
    """Return the smaller of the video's width and height in pixels."""
    return float(info.short_side_px)


FILTER = Filter(
    name="resolution",
    about="Size of the video.",
    thresholds=ResolutionConfig,
    score=Score("short_side_px", "video", "Short side", "pixels", low=0),
    below=Limit("min_short_side_px", "low_resolution"),
    describe=lambda limits: f"short side of at least {limits.min_short_side_px} px",
    measure=lambda measured: score(measured.video),
)
