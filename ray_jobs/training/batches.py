"""Training batches of each worker, and held-out samples for validation."""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from data_prep.loader import Loader
from data_prep.sample import Sample
from data_prep.sampling import VALIDATION
from infra.errors import UserError
from ray_jobs.training.config import StageConfig


def held_out(uri: str, stage: StageConfig, count: int) -> list[Sample]:
    """Return up to `count` validation samples of each of the stage's lengths, longest first.

    Few clips of a small corpus are long; shorter windows bring in the others.

    Raises:
        UserError: nothing is held out in any of the stage's lengths.
    """
    samples: list[Sample] = []
    for mix in sorted(stage.data, key=lambda mix: -mix.frames):
        with contextlib.suppress(UserError):
            samples += Loader(uri, VALIDATION, [mix], 1, 1, seed=0).first(count)
    if not samples:
        lengths = ", ".join(str(mix.frames) for mix in stage.data)
        raise UserError(
            f"{uri}: no validation clip of {lengths} frames; hold out more (validation_share), "
            "or train on shorter clips"
        )
    return samples


def prefetched(
    ahead: ThreadPoolExecutor,
    loader: Loader,
    steps: range,
    group: int,
    groups: int,
    depth: int = 1,
) -> Iterator[list[Sample]]:
    """Yield the batches of `steps`; up to `depth` are read ahead. See :func:`batch`."""
    coming: deque[Future[list[Sample]]] = deque()
    for step in steps:
        while len(coming) <= depth and step + len(coming) < steps.stop:
            coming.append(ahead.submit(batch, loader, step + len(coming), group, groups))
        yield coming.popleft().result()


def batch(loader: Loader, step: int, group: int, groups: int) -> list[Sample]:
    """Return a group's share of a batch; a group is one worker, or those that share sequences."""
    return loader.batch(step, group, groups)
