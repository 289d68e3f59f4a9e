"""Record of one filter: its thresholds, its score and how that is measured, its reasons.

::

    sampled frame ─sample─▶ value ┐
    all values of a clip ◀────────┘─measure─▶ score ─below, above─▶ reason, or None to keep

A filter is one file with one such record. Config keys, columns and metadata of the clip table,
verdicts and charts follow from the list of records in :mod:`data_prep.filters`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data_prep.types import Scene, VideoInfo
from infra.config import Section

Source = Literal["clip", "video", "samples", "models"]


@dataclass(frozen=True)
class Sample:
    """A sampled frame, long side at most 256 px."""

    frame_HWC: np.ndarray
    """uint8 RGB."""
    luma_HW: np.ndarray
    """uint8."""
    last_luma_HW: np.ndarray | None
    """Luma of the film's sample before, which may be of another clip; None for the first."""


@dataclass(frozen=True)
class Measured:
    """What a score is measured from."""

    video: VideoInfo
    clip: Scene
    samples: Sequence[Any]
    """What the filter's ``sample`` returned for each of the clip's samples, perhaps none."""
    size: tuple[int, int]
    """Width and height of the sampled frames in pixels."""


@dataclass(frozen=True)
class Score:
    """A number for each clip, a column of the clip table."""

    name: str
    source: Source
    """What it is measured on; `ray_jobs.score` fills in those of models. The table has its columns
    in the order of :data:`Source`."""
    title: str
    """Of its chart."""
    unit: str
    low: float | None = None
    """Least possible value; None: no bound."""
    high: float | None = None
    scale: str | None = None
    """Name of an arbitrary scale, for the table's metadata: scores of two scales do not compare."""

    @property
    def axis(self) -> str:
        """Label of a chart's axis: the unit, and the range where it has two ends."""
        if self.low is None or self.high is None:
            return self.unit
        return f"{self.unit}, {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Limit:
    """A threshold and the reason against clips that are beyond it."""

    key: str
    """Of the filter's thresholds; where its value is None all clips pass."""
    reason: str
    slack: float = 0.0
    """How far beyond is still allowed, for scores that are rounded."""


@dataclass(frozen=True)
class Filter:
    """A filter; see the module."""

    name: str
    """Key of its thresholds in the config."""
    about: str
    """Help text of that key."""
    thresholds: type[Section]
    score: Score
    describe: Callable[[Any], str]
    """Returns what the thresholds say, for people."""
    below: Limit | None = None
    above: Limit | None = None
    sample: Callable[[Sample], Any] | None = None
    """Taken of each sampled frame; should be small, since all of a film's are kept."""
    measure: Callable[[Measured], float | None] | None = None
    """Returns the score, or None when it is unknown; the scores of models have none."""
    also_drawn: tuple[str, ...] = ()
    """Thresholds that the score's chart shows beside the two limits."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """All reasons that it may give."""
        return tuple(limit.reason for limit in (self.below, self.above) if limit)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Keys of the thresholds that the score's chart shows."""
        return (*(limit.key for limit in (self.below, self.above) if limit), *self.also_drawn)

    def verdict(self, score: float | None, thresholds: Any) -> str | None:
        """Return why a clip with this score is filtered, or None to keep it (also when unknown)."""
        if score is None:
            return None
        if (limit := self.below) is not None:
            least = getattr(thresholds, limit.key)
            if least is not None and score < least - limit.slack:
                return limit.reason
        if (limit := self.above) is not None:
            most = getattr(thresholds, limit.key)
            if most is not None and score > most + limit.slack:
                return limit.reason
        return None
