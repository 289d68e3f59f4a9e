"""Frame rate: leave out slide shows and slow motion."""

from typing import Annotated

from pydantic import Field, model_validator

from data_prep.filters.record import Filter, Limit, Score
from data_prep.types import VideoInfo
from infra.config import Section


class FrameRateConfig(Section):
    """Which frame rates to keep."""

    min_fps: Annotated[float, Field(ge=0)] = 10.0
    """Videos with fewer frames a second are filtered; silent film has 16. 0 keeps all."""
    max_fps: Annotated[float, Field(gt=0)] = 125.0
    """Videos with more are filtered: slow motion, or a rate that its container made up."""

    @model_validator(mode="after")
    def _ordered(self) -> "FrameRateConfig":
        if self.min_fps > self.max_fps:
            raise ValueError(f"min_fps {self.min_fps} is above max_fps {self.max_fps}")
        return self


def score(info: VideoInfo) -> float | None:
    """Return the mean frames per second that the container states; None for an image."""
    return None if info.media == "image" else info.fps


FILTER = Filter(
    name="frame_rate",
    about="Slide shows and slow motion.",
    thresholds=FrameRateConfig,
    score=Score("fps", "video", "Frame rate", "frames per second", low=0),
    below=Limit("min_fps", "low_frame_rate"),
    above=Limit("max_fps", "high_frame_rate"),
    describe=lambda limits: f"{limits.min_fps:g} to {limits.max_fps:g} frames/s",
    measure=lambda measured: score(measured.video),
)
