"""Projection of what preparing a whole corpus will take, from a sample of its videos."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from infra.config import Section
from infra.seeding import derive, rng

MEASURES = ("cpu_hours", "source_hours", "output_gb", "kept_videos", "kept_clips")
"""What is projected, each a total over the corpus; GB are 10^9 bytes."""
CONFIDENCE = 0.95
_RESAMPLES = 2000


class ProjectionConfig(Section):
    """How a dry run looks ahead."""

    videos: Annotated[int, Field(ge=0)] = 8
    """Videos that a dry run analyses, drawn by the seed; 0 projects nothing."""
    seconds: Annotated[float, Field(gt=0)] = 120.0
    """No further video is begun after so long."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """Of the cluster that the wall time is for; None: this machine's."""


@dataclass(frozen=True)
class Interval:
    """A projected total and where it lies with `CONFIDENCE`."""

    value: float
    low: float
    high: float


class Sample:
    """A sample of up to `count` things, drawn by seed and id: the same whatever their order.

    Args:
        count: of things to draw.
        seed: of the job.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._drawn: list[tuple[int, int, Any]] = []
        self.seen = 0
        """Things that were offered."""

    def offer(self, ids: Iterable[str], things: Iterable[Any]) -> None:
        """Offer things, each by its id; those that are not drawn are let go."""
        offered = [
            (derive(self._seed, "projection", one), self.seen + n, thing)
            for n, (one, thing) in enumerate(zip(ids, things, strict=True))
        ]
        self.seen += len(offered)
        self._drawn = heapq.nsmallest(self._count, [*self._drawn, *offered])

    @property
    def drawn(self) -> list[Any]:
        """What is drawn, in the order of drawing."""
        return [thing for _, _, thing in self._drawn]


def measures(row: Mapping[str, Any], row_bytes: int) -> dict[str, float]:
    """Return what one row of the clip table adds to each of `MEASURES`.

    Args:
        row: with ``status``, ``duration_s``, ``cpu_seconds`` and ``clips``.
        row_bytes: what the row takes in the table.
    """
    quarantined = row["status"] == "quarantined"
    return {
        "cpu_hours": row["cpu_seconds"] / 3600,
        "source_hours": 0.0 if quarantined else (row["duration_s"] or 0.0) / 3600,
        "output_gb": row_bytes / 1e9,
        "kept_videos": float(row["status"] == "kept"),
        "kept_clips": float(sum(clip["status"] == "kept" for clip in row["clips"])),
    }


def project(sampled: Sequence[Mapping[str, float]], total: int, seed: int) -> dict[str, Interval]:
    """Return each measure over `total` videos from those of a sample drawn without replacement.

    The interval is the bootstrap's, narrowed by the share of the corpus that the sample is: a
    sample of everything knows the answer. A sample of one knows nothing of spread, and its
    interval is 0 to infinity.
    """
    values = np.array([[one[name] for name in MEASURES] for one in sampled])
    count = len(values)
    mean = values.mean(0)
    if count == total:
        spread = np.zeros((2, len(MEASURES)))
    elif count == 1:
        spread = np.stack([-mean, np.full(len(MEASURES), np.inf)])
    else:
        spread = _spread(values, seed) * np.sqrt(1 - count / total)
    return {
        name: Interval(
            float(mean[n] * total),
            float(max(mean[n] + spread[0, n], 0) * total),
            float((mean[n] + spread[1, n]) * total),
        )
        for n, name in enumerate(MEASURES)
    }


def _spread(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return how far below and above the mean the bootstrap's quantiles lie, (2, measures)."""
    chosen = rng(seed, "bootstrap").integers(len(values), size=(_RESAMPLES, len(values)))
    means = values[chosen].mean(1)
    tails = (1 - CONFIDENCE) / 2
    return np.quantile(means, [tails, 1 - tails], axis=0) - values.mean(0)


def wall_hours(cpu_hours: Interval, cpus: float, cpus_per_task: float, videos: int) -> Interval:
    """Return how long a cluster takes when each task keeps its CPUs busy.

    Args:
        cpu_hours: projected.
        cpus: of the cluster.
        cpus_per_task: that each video's task reserves.
        videos: how many there are: no more tasks can run at once.
    """
    at_once = max(min(cpus // cpus_per_task, videos), 1)
    return Interval(
        *(hours / at_once for hours in (cpu_hours.value, cpu_hours.low, cpu_hours.high))
    )
