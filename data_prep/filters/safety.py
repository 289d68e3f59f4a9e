"""Safety: leave out clips that are not safe for work.

The score is the highest probability that a model (:mod:`models.perception.unsafe`) gives to a few
frames of the clip, since a single frame is enough. It is None until ``ray_jobs.score`` has run.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

SCALE = "highest_open_nsfw_probability_of_frames"


class SafetyConfig(Section):
    """How unsafe a clip may look."""

    max_unsafe: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Clips above this probability are filtered; 1 keeps all."""


def score(probabilities: Sequence[float]) -> float | None:
    """Return the highest probability of a clip's frames, 0 to 1, or None when it has none."""
    return max(probabilities, default=None)


FILTER = Filter(
    name="safety",
    about="Not safe for work; this and the next three once `ray_jobs.score` has run.",
    thresholds=SafetyConfig,
    score=Score("unsafe", "models", "Not safe for work", "highest probability", 0, 1, scale=SCALE),
    above=Limit("max_unsafe", "unsafe"),
    describe=lambda limits: f"probability of at most {limits.max_unsafe:g}",
)
