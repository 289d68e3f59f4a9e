"""Filters, one file each; all that is known of one is its record (:class:`Filter`).

Scores are stored for every clip, kept or not, so a threshold can be moved without decoding again.
To add a filter, write its file and put it into :data:`FILTERS`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field, create_model

from data_prep.filters import (
    aesthetic,
    aspect,
    black,
    blur,
    brightness,
    duration,
    frame_rate,
    hdr,
    letterbox,
    motion,
    resolution,
    safety,
    similarity,
    text,
)
from data_prep.filters.record import Filter, Source
from data_prep.types import Scores
from infra.config import Section

FILTERS: tuple[Filter, ...] = tuple(
    module.FILTER
    for module in (
        # what holds for the whole video
        resolution,
        aspect,
        frame_rate,
        hdr,
        duration,
        # pictures, from the plainest fault to the most doubtful scale
        black,
        brightness,
        letterbox,
        motion,
        blur,
        # what models say of them
        safety,
        text,
        similarity,
        aesthetic,
    )
)
"""All filters in the order in which they are asked."""

SCORED = tuple(sorted(FILTERS, key=lambda each: get_args(Source).index(each.score.source)))
"""The same in the order of their scores in the clip table."""


class _ScoreOnly(Section):
    score_only: bool = False
    """Keep every clip and store its scores. Long shots are split all the same."""


def _thresholds() -> type[_ScoreOnly]:
    fields: dict[str, Any] = {
        each.name: (
            each.thresholds,
            Field(default_factory=each.thresholds, description=each.about),
        )
        for each in FILTERS
    }
    return create_model("Thresholds", __base__=_ScoreOnly, __module__=__name__, **fields)


class FiltersConfig(_thresholds()):
    """The thresholds of all filters, under their names."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...


def reasons(scores: Scores, config: FiltersConfig) -> tuple[str, ...]:
    """Return every reason against a clip, in the order of :data:`FILTERS`; empty to keep it."""
    if config.score_only:
        return ()
    verdicts = (
        each.verdict(scores[each.score.name], getattr(config, each.name)) for each in FILTERS
    )
    return tuple(reason for reason in verdicts if reason is not None)


def verdict(scores: Scores, config: FiltersConfig) -> str | None:
    """Return the first of a clip's :func:`reasons`, or None to keep it."""
    return next(iter(reasons(scores, config)), None)


def verdict_on_video(clips: Sequence[str | None]) -> str | None:
    """Return the commonest verdict on a video's clips, or None when one of them is kept.

    Args:
        clips: the verdict on each clip; at least one.
    """
    rejected = Counter(reason for reason in clips if reason is not None)
    if rejected.total() < len(clips):
        return None
    # Ties go by name, so that the reason does not depend on the order of clips.
    return min(rejected, key=lambda reason: (-rejected[reason], reason))


def describe(config: FiltersConfig) -> list[str]:
    """Return one line a filter for people, in the order in which they are asked."""
    lines = [
        f"filter {each.name.replace('_', ' ')}: "
        + ("once ray_jobs.score has run, " if each.score.source == "models" else "")
        + each.describe(getattr(config, each.name))
        for each in FILTERS
    ]
    return [*lines, "scores only: no clip is filtered"] if config.score_only else lines
