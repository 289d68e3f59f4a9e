"""Brightness: leave out clips that are too dark to see."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from infra.config import Section


class BrightnessConfig(Section):
    """How dark a clip may be."""

    min_luma: Annotated[float, Field(ge=0, le=255)] = 12.0
    """Clips whose mean luma (0 to 255) is below this are filtered; 0 keeps all."""


def score(lumas: Sequence[float]) -> float | None:
    """Return the mean of a clip's sampled lumas, 0 to 255, or None when it has none."""
    return sum(lumas) / len(lumas) if lumas else None


def verdict(brightness: float | None, config: BrightnessConfig) -> str | None:
    """Return why a clip this dark is filtered, or None to keep it (also when unknown)."""
    return "too_dark" if brightness is not None and brightness < config.min_luma else None
