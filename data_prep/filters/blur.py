"""Blur: leave out clips that are out of focus.

The score is the median over a clip's samples of the variance of the Laplacian of luma, on frames
whose long side is at most 256 px; higher is sharper. The median passes over a fade or a flash.
Blur that is finer than the analysed frame's pixels does not show.
"""

import statistics
from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

SCALE = "median_variance_of_laplacian_of_luma_0_255_2_per_second_long_side_256px"


class BlurConfig(Section):
    """How blurred a clip may be, on :data:`SCALE`."""

    min_sharpness: Annotated[float, Field(ge=0)] = 0.0
    """Clips below this are filtered. 0 keeps all: fog, night and flat drawings score as low as
    blur does, so a limit has to be read off the scores of the films at hand."""


def sharpness(luma_HW: np.ndarray) -> float:
    """Return the variance of the Laplacian (3x3, four neighbours) of a uint8 luma image."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma_HW, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


def score(sharpnesses: Sequence[float]) -> float | None:
    """Return the median of a clip's sampled sharpnesses, from 0, or None when it has none."""
    return statistics.median(sharpnesses) if sharpnesses else None


FILTER = Filter(
    name="blur",
    about="Focus.",
    thresholds=BlurConfig,
    score=Score(
        "sharpness",
        "samples",
        "Sharpness",
        "fine detail (variance of the Laplacian), higher is sharper",
        low=0,
        scale=SCALE,
    ),
    below=Limit("min_sharpness", "blurred"),
    describe=lambda limits: f"sharpness of at least {limits.min_sharpness:g}",
    sample=lambda sample: sharpness(sample.luma_HW),
    measure=lambda measured: score(measured.samples),
)
