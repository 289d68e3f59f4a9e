"""Black: leave out clips that are black for much of their time.

The score is the share of a clip's samples that are nearly black, so a clip that fades, bright and
then black, is told from one that is dark throughout, which :mod:`data_prep.filters.brightness`
finds. The two limits of "nearly black" are those of ffmpeg's blackdetect.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

LUMA = 26
"""A pixel below this (a tenth of 0 to 255) is black."""
PIXELS = 0.98
"""A sample with at least this share of black pixels is nearly black."""
SCALE = f"share_of_samples_with_{PIXELS}_of_pixels_below_luma_{LUMA}_2_per_second"


class BlackConfig(Section):
    """How much of a clip may be black."""

    max_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Clips of whose samples a larger share is nearly black are filtered; 1 keeps all."""


def is_black(luma_HW: np.ndarray) -> bool:
    """Return whether a uint8 luma image is nearly black."""
    return float((luma_HW < LUMA).mean()) >= PIXELS


def score(samples_black: Sequence[float]) -> float | None:
    """Return the share of black samples, 0 to 1, or None when the clip has no sample.

    Args:
        samples_black: 1 for each sample that is nearly black, 0 for the others.
    """
    return sum(samples_black) / len(samples_black) if samples_black else None


FILTER = Filter(
    name="black",
    about="Clips that fade or are black.",
    thresholds=BlackConfig,
    score=Score(
        "black_share", "samples", "Black", "share of samples nearly black", 0, 1, scale=SCALE
    ),
    above=Limit("max_share", "black"),
    describe=lambda limits: f"at most {limits.max_share:g} of the samples",
    sample=lambda sample: is_black(sample.luma_HW),
    measure=lambda measured: score(measured.samples),
)
