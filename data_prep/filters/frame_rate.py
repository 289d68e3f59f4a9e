"""Frame rate: leave out slide shows and slow motion."""

from typing import Annotated

from pydantic import Field, model_validator

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


def score(info: VideoInfo) -> float:
    """Return the video's mean frames per second, as its container states them."""
    return info.fps


def verdict(fps: float, config: FrameRateConfig) -> str | None:
    """Return why a video of this rate is filtered, or None to keep it."""
    if fps < config.min_fps:
        return "low_frame_rate"
    return "high_frame_rate" if fps > config.max_fps else None
