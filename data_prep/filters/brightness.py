"""Brightness: leave out clips that are too dark to see."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section


class BrightnessConfig(Section):
    """How dark a clip may be."""

    min_luma: Annotated[float, Field(ge=0, le=255)] = 12.0
    """Clips whose mean luma (0 to 255) is below this are filtered; 0 keeps all."""


def score(lumas: Sequence[float]) -> float | None:
    """Return the mean of a clip's sampled lumas, 0 to 255, or None when it has none."""
    return sum(lumas) / len(lumas) if lumas else None


FILTER = Filter(
    name="brightness",
    about="Darkness.",
    thresholds=BrightnessConfig,
    score=Score("brightness", "samples", "Brightness", "mean luma", 0, 255),
    below=Limit("min_luma", "too_dark"),
    describe=lambda limits: f"mean luma of at least {limits.min_luma:g} of 255",
    sample=lambda sample: float(sample.luma_HW.mean()),
    measure=lambda measured: score(measured.samples),
)
