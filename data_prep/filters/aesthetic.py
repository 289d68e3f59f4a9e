"""Aesthetic: leave out clips that people would not find beautiful.

The score is what a linear head makes of a few frames' CLIP embeddings
(:mod:`models.perception.clip`), their mean; heads trained on ratings from 1 to 10 give about that.
It depends on the weights of both, whose fingerprints are in the table's metadata, and is None until
``ray_jobs.score`` has run.
"""

from collections.abc import Sequence

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

SCALE = "mean_of_linear_head_on_unit_clip_embeddings_of_frames"


class AestheticConfig(Section):
    """How beautiful a clip must be."""

    min_score: float | None = None
    """Clips below are filtered; None keeps all. 4.5 to 5 is usual for ratings from 1 to 10."""


def score(ratings: Sequence[float]) -> float | None:
    """Return the mean rating of a clip's frames, or None when it has none."""
    return sum(ratings) / len(ratings) if ratings else None


FILTER = Filter(
    name="aesthetic",
    about="Beauty.",
    thresholds=AestheticConfig,
    score=Score("aesthetic", "models", "Beauty", "rating by a linear head", scale=SCALE),
    below=Limit("min_score", "unaesthetic"),
    describe=lambda limits: (
        "off" if limits.min_score is None else f"rating of at least {limits.min_score}"
    ),
)
