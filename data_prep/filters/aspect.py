"""Aspect: leave out videos whose shape is far from what a model is trained on."""

from typing import Annotated

from pydantic import Field, model_validator

from data_prep.filters.record import Filter, Limit, Score
from data_prep.types import VideoInfo
from infra.config import Section


class AspectConfig(Section):
    """Which shapes of video to keep, as width divided by height."""

    min_ratio: Annotated[float, Field(gt=0)] = 0.33
    """Videos below this are filtered as tall (a phone held upright is 0.56)."""
    max_ratio: Annotated[float, Field(gt=0)] = 3.0
    """Videos above this are filtered as wide (the widest cinema formats are near 2.8)."""

    @model_validator(mode="after")
    def _ordered(self) -> "AspectConfig":
        if self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio {self.min_ratio} is above max_ratio {self.max_ratio}")
        return self


def score(info: VideoInfo) -> float:
    """Return the video's width divided by its height, in stored pixels, bars included."""
    return info.width_px / info.height_px


FILTER = Filter(
    name="aspect",
    about="Shape of the video.",
    thresholds=AspectConfig,
    score=Score("aspect_ratio", "video", "Shape", "width ÷ height", low=0),
    below=Limit("min_ratio", "tall"),
    above=Limit("max_ratio", "wide"),
    describe=lambda limits: f"width/height {limits.min_ratio:g} to {limits.max_ratio:g}",
    measure=lambda measured: score(measured.video),
)
