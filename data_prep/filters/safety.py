"""Safety: leave out clips that are not safe for work.

The score is the highest probability that a model (:mod:`models.scoring.unsafe`) gives to a few
frames of the clip, since a single frame is enough. It is None until ``ray_jobs.score`` has run.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from infra.config import Section

SCALE = "highest_open_nsfw_probability_of_frames"


class SafetyConfig(Section):
    """How unsafe a clip may look."""

    max_unsafe: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Clips above this probability are filtered; 1 keeps all."""


def score(probabilities: Sequence[float]) -> float | None:
    """Return the highest probability of a clip's frames, 0 to 1, or None when it has none."""
    return max(probabilities, default=None)


def verdict(unsafe: float | None, config: SafetyConfig) -> str | None:
    """Return why a clip this unsafe is filtered, or None to keep it (also when unknown)."""
    return "unsafe" if unsafe is not None and unsafe > config.max_unsafe else None
