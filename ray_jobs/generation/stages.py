"""Stages of a generating system on a cluster: as resumable parts, or on actors that sweeps share.

A part is a group of videos. Its films are written first and its record last, so that a rerun makes
the groups that have no record, whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import ray
import torch
from ray.util import ActorPool

from infra import storage
from infra.config import Resources
from ray_jobs import units, video_table
from ray_jobs.generation import films
from ray_jobs.generation.requests import Requests
from ray_jobs.generation.system import (
    CarryingWorker,
    FilmFormat,
    FrameWorker,
    Group,
    Stage,
    SystemConfig,
)
from ray_jobs.units import Factory, Parts, Receipt
from ray_jobs.video_table import Row


@dataclass(frozen=True)
class Work:
    """What a run makes: small, and all that an actor needs beside its models."""

    output_uri: str
    requests: Requests
    film: FilmFormat
    models: dict[str, str]
    settings: SystemConfig

    @property
    def parts(self) -> Parts:
        """The groups as parts, whose main file is the record of their videos."""
        unit = "videos" if self.requests.group_size == 1 else "groups of videos"
        return Parts(self.output_uri, video_table.FOLDER, self.requests.groups, ".json", unit)

    def group(self, number: int) -> Group:
        """Return the videos of a part."""
        return Group(self.requests.group(number), self.settings)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all videos in order, once every group has its record."""
        for number in range(self.requests.groups):
            yield from storage.read_json(self.parts.uri(number))


class StageActor:
    """Holds the worker of one stage; a run hands it the work, so that several runs may share it."""

    def __init__(self, stage: Stage, resources: Resources) -> None:
        """Load the models."""
        torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
        self._worker = stage.build(**stage.arguments)

    def carry(self, work: Work, number: int, carried: bytes = b"") -> bytes:
        """Return what the next stage needs of a group."""
        return cast(CarryingWorker, self._worker)(work.group(number), carried)

    def finish(self, work: Work, number: int, carried: bytes = b"") -> Receipt:
        """Write the films of a group, then the record that says that they are whole."""
        group = work.group(number)
        frames = cast(FrameWorker, self._worker)(group, carried)
        rows = films.write(work.output_uri, group, work.film, work.models, frames)
        storage.write_json(work.parts.uri(number), rows)
        return {"videos": len(rows)}


class _PartWorker:
    """A stage actor with its work, as `units.run` calls it."""

    def __init__(self, stage: Stage, resources: Resources, work: Work, last: bool) -> None:
        actor = StageActor(stage, resources)
        self._work, self._call = work, actor.finish if last else actor.carry

    def __call__(self, part: int, carried: bytes = b"") -> Any:
        return self._call(self._work, part, carried)


def run(work: Work, stages: Sequence[Stage], resources: Sequence[Resources]) -> Iterator[Receipt]:
    """Make the groups that have no record and yield a receipt of each.

    Args:
        work: of the run.
        stages: of the system, in order.
        resources: of each stage.

    Raises:
        storage.Unavailable: storage did not answer.
        UserError: a stage refuses its work.
    """
    steps = [
        units.Step(
            Factory(
                _PartWorker,
                {"stage": stage, "resources": each, "work": work, "last": stage is stages[-1]},
            ),
            each,
        )
        for stage, each in zip(stages, resources, strict=True)
    ]
    *before, last = steps
    return units.run(work.parts, last.factory, last.resources, before=before)


class SharedActors:
    """Actors of all stages that outlive a run, so that a sweep loads its models once.

    Args:
        stages: of the system, in order.
        resources: of each stage.
    """

    def __init__(self, stages: Sequence[Stage], resources: Sequence[Resources]) -> None:
        """Start the actors; they load their models meanwhile."""
        self._actors = [
            [_start(stage, each) for _ in range(each.workers)]
            for stage, each in zip(stages, resources, strict=True)
        ]

    def run(self, work: Work) -> Iterator[Receipt]:
        """Make the groups that have no record; see :func:`run`."""
        numbers = map(int, np.flatnonzero(~units.done(work.parts)))
        passed: Any = ((number, b"") for number in numbers)
        *before, last = self._actors
        for actors in before:
            passed = ActorPool(actors).map_unordered(
                lambda actor, item: actor.carry_on.remote(work, *item), passed
            )
        receipts: Any = ActorPool(last).map_unordered(
            lambda actor, item: actor.finish.remote(work, *item), passed
        )
        return receipts

    def close(self) -> None:
        """End the actors."""
        for actor in (actor for actors in self._actors for actor in actors):
            ray.kill(actor)


class _SharedActor(StageActor):
    def carry_on(self, work: Work, number: int, carried: bytes) -> tuple[int, bytes]:
        return number, self.carry(work, number, carried)


def _start(stage: Stage, resources: Resources) -> Any:
    needs: Any = {"num_cpus": resources.cpus_per_worker, "num_gpus": resources.gpus_per_worker}
    remote: Any = ray.remote(**needs)(_SharedActor)
    return remote.remote(stage, resources)
