"""What a stage is judged on, and which losses are bad."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_prep import shards
from data_prep.loader import Mix
from infra import artifact
from infra.config import JobConfig
from infra.errors import UserError
from ray_jobs.training.config import BadLossConfig, RunConfig, StageConfig
from ray_jobs.training.loop import BadLoss, Place, Work, _Run, held_out

FRAMES = (1, 9, 40, 70)
"""Of the held-out clips; the only clip to train on has 70 too."""


@pytest.fixture
def pixels(tmp_path: Path) -> str:
    rows = [
        {
            "clip_id": f"c{number}", "video_id": "v", "caption": "film", "motion": 1.0,
            "split": "train" if number == len(FRAMES) else "validation",
            "fps": 12.0, "start_s": 0.0, "end_s": 1.0, "frames": frames,
            "height": 8, "width": 8, "pixels": np.zeros(frames * 8 * 8 * 3, np.uint8).tobytes(),
        }
        for number, frames in enumerate((*FRAMES, 70))
    ]  # fmt: skip
    output = artifact.begin(
        "pixels", JobConfig(input=(str(tmp_path),), output=str(tmp_path / "pixels"))
    )
    Path(output.path("pixels", "")).mkdir()
    with shards.Writer(output.path("pixels", "part.parquet"), shards.PIXELS) as writer:
        writer.write_table(pa.Table.from_pylist(rows, shards.PIXELS))
    artifact.finish(output, "pixels", {}, time.monotonic())
    return output.uri


def stage(*frames: int) -> StageConfig:
    return StageConfig(name="s", steps=1, batch_size=1, data=tuple(Mix(frames=f) for f in frames))


def test_judges_every_length_of_the_stage_so_that_short_clips_count_too(pixels: str):
    judged = held_out(pixels, stage(1, 17, 65), count=3)
    lengths = [sample["pixels"].shape[0] for sample in judged]
    assert lengths == [65, 17, 17, 17, 1, 1, 1]
    assert {sample["clip_id"] for sample in judged} >= {"c0", "c2", "c3"}
    assert "c4" not in {sample["clip_id"] for sample in judged}


def test_passes_over_a_length_that_no_held_out_clip_has(pixels: str):
    lengths = [sample["pixels"].shape[0] for sample in held_out(pixels, stage(17, 129), count=1)]
    assert lengths == [17]
    with pytest.raises(UserError, match="no validation clip of 129 frames"):
        held_out(pixels, stage(129), count=1)


def run_with(**policy: Any) -> _Run:
    work = Work(None, (), RunConfig(bad_loss=BadLossConfig(**policy)), "", "", 0, 1)  # pyright: ignore
    run = _Run(work, rank=1, workers=1, place=Place(), skipped={})
    run.place.step = 41
    return run


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_bad(loss: float):
    with pytest.raises(BadLoss, match=r"the loss of step 42 \(stage s\) is not finite") as caught:
        run_with()._check(loss, stage(1))
    assert caught.value.step == 41


def test_a_spike_is_measured_against_the_median_of_a_full_window():
    run = run_with(spike_ratio=2.0, spike_window=5)
    for loss in (1.0, 100.0, 1.0, 1.0, 1.0):  # the window is not full yet: nothing is a spike
        run._check(loss, stage(1))
    run._check(1.9, stage(1))
    with pytest.raises(BadLoss, match=r"is 2.1, 2.1 times the usual 1$"):
        run._check(2.1, stage(1))
    assert run.place.losses == [100.0, 1.0, 1.0, 1.0, 1.9], "a bad loss is no part of the usual"


def test_without_a_ratio_no_finite_loss_is_bad():
    run = run_with(spike_window=2)
    for loss in (1.0, 1.0, 1e9):
        run._check(loss, stage(1))
