"""Which samples a worker reads, how far ahead, and what a stage is judged on."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from data_prep.loader import Loader, Mix
from data_prep.sample import Sample
from infra.errors import UserError
from ray_jobs.training.batches import batch, held_out, prefetched
from ray_jobs.training.config import StageConfig
from tests import shard_artifacts
from tests.shard_artifacts import row, window

FRAMES = (1, 9, 40, 70)
"""Of the held-out clips; the only clip to train on has 70 too."""


@pytest.fixture
def pixels(tmp_path: Path) -> str:
    rows = [
        row(
            f"c{number}",
            [window(np.zeros((frames, 8, 8, 3), np.uint8), frames)],
            split="train" if number == len(FRAMES) else "validation",
        )
        for number, frames in enumerate((*FRAMES, 70))
    ]
    return shard_artifacts.write(tmp_path, shard_artifacts.FRAMES, [rows])


def stage(*frames: int) -> StageConfig:
    return StageConfig(name="s", steps=1, batch_size=1, data=tuple(Mix(frames=f) for f in frames))


def test_judges_every_length_of_the_stage_so_that_short_clips_count_too(pixels: str):
    judged = held_out(pixels, stage(1, 17, 65), count=3)
    lengths = [sample.data.shape[0] for sample in judged]
    assert lengths == [65, 17, 17, 17, 1, 1, 1]
    assert {sample.clip_id for sample in judged} >= {"c0", "c2", "c3"}
    assert "c4" not in {sample.clip_id for sample in judged}


def test_passes_over_a_length_that_no_held_out_clip_has(pixels: str):
    lengths = [sample.data.shape[0] for sample in held_out(pixels, stage(17, 129), count=1)]
    assert lengths == [17]
    with pytest.raises(UserError, match="no validation clip of 129 frames"):
        held_out(pixels, stage(129), count=1)


class Asked(ThreadPoolExecutor):
    """Remembers which steps were asked for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.steps: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future:
        self.steps.append(args[1])
        return super().submit(fn, *args, **kwargs)


class Late(Loader):
    """A loader with a shard that comes when it is let through."""

    def __init__(self, uri: str, step: int) -> None:
        super().__init__(uri, "train", [Mix(frames=1), Mix(frames=5)], 9, 2, seed=3)
        self.late, self.through = step, Event()

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        if step == self.late:
            assert self.through.wait(60)
        return super().batch(step, rank, world_size)


def places(samples: list[Sample]) -> list[tuple]:
    return [(s.data.shape, s.start_frame, s.seed) for s in samples]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_reads_as_far_ahead_as_asked(pixels: str, depth: int):
    loader = Late(pixels, step=-1)
    with Asked() as ahead:
        coming = prefetched(ahead, loader, range(2, 9), 0, 1, depth)
        for step in range(2, 9):
            assert places(next(coming)) == places(batch(loader, step, 0, 1))
            assert ahead.steps == list(range(2, min(step + depth, 8) + 1))
        assert next(coming, None) is None


def test_a_shard_that_comes_late_changes_no_batch_and_holds_up_none_before_it(pixels: str):
    loader = Late(pixels, step=4)
    straight = [places(batch(Late(pixels, step=-1), step, 0, 1)) for step in range(9)]
    with ThreadPoolExecutor(1) as ahead:
        coming = prefetched(ahead, loader, range(9), 0, 1, depth=3)
        found = [places(next(coming)) for _ in range(4)]
        loader.through.set()
        assert found + [places(samples) for samples in coming] == straight
