"""What a stage is judged on."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_prep import shards
from data_prep.loader import Mix
from infra import artifact
from infra.config import JobConfig
from infra.errors import UserError
from ray_jobs.training.batches import held_out
from ray_jobs.training.config import StageConfig

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
