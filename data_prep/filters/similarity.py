"""Similarity: leave out clips that do not show what their caption says.

The score is the cosine between a caption and a few frames of the clip in the space of a CLIP model
(:mod:`models.perception.clip`), their mean. It depends on the model's weights, whose fingerprint is
in the table's metadata. It is None for clips without a caption, and until ``ray_jobs.score`` has
run.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

SCALE = "mean_cosine_of_caption_and_frames_by_clip"


class SimilarityConfig(Section):
    """How near to its caption a clip must be."""

    min_cosine: Annotated[float, Field(ge=-1, le=1)] = -1.0
    """Clips below are filtered; -1 keeps all. Limits in use for CLIP ViT-B/32 lie between 0.1 and
    0.3; other weights have other scales."""


def score(cosines: Sequence[float]) -> float | None:
    """Return the mean of a clip's cosines, -1 to 1, or None when it has none."""
    return sum(cosines) / len(cosines) if cosines else None


FILTER = Filter(
    name="similarity",
    about="Captions that say something else.",
    thresholds=SimilarityConfig,
    score=Score(
        "caption_similarity",
        "models",
        "Nearness to the caption",
        "cosine by CLIP",
        low=-1,
        high=1,
        scale=SCALE,
    ),
    below=Limit("min_cosine", "off_caption"),
    describe=lambda limits: f"cosine of at least {limits.min_cosine:g}",
)
