"""Motion: leave out stills and slides, and where asked for, restless footage.

The score is the mean absolute difference of luma between two samples of a clip that follow each
other, on frames whose long side is 256 px. Scales of motion do not compare across tools, so the
name of this one is stored in the table's schema.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

SCALE = "mean_abs_luma_difference_0_255_between_samples_2_per_second_long_side_256px"
SAMPLES_PER_SECOND = 2.0


class MotionConfig(Section):
    """How much may move, on :data:`SCALE`."""

    min_score: Annotated[float, Field(ge=0, le=255)] = 0.5
    """Below: a still. 0 keeps all."""
    max_score: Annotated[float, Field(ge=0, le=255)] = 255.0
    """Above: too restless. 255 keeps all."""

    @model_validator(mode="after")
    def _ordered(self) -> "MotionConfig":
        if self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is above max_score {self.max_score}")
        return self


def difference(before_HW: np.ndarray, after_HW: np.ndarray) -> float:
    """Return the mean absolute difference of two uint8 luma images, 0 to 255."""
    return float(np.abs(after_HW.astype(np.int16) - before_HW).mean())


def score(differences: Sequence[float]) -> float | None:
    """Return the mean of a clip's differences between samples, or None when it has none."""
    return sum(differences) / len(differences) if differences else None


FILTER = Filter(
    name="motion",
    about="Stills and restless footage.",
    thresholds=MotionConfig,
    score=Score(
        "motion", "samples", "Motion", "mean luma difference between samples", 0, 255, scale=SCALE
    ),
    below=Limit("min_score", "still"),
    above=Limit("max_score", "restless"),
    describe=lambda limits: f"{limits.min_score:g} to {limits.max_score:g} of 255",
    sample=lambda sample: (
        0.0 if sample.last_luma_HW is None else difference(sample.last_luma_HW, sample.luma_HW)
    ),
    # the first sample's difference reaches back to before the clip
    measure=lambda measured: score(measured.samples[1:]),
)
