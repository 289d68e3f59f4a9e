"""The corpus on disk: deterministic, readable by prepare, cut where the truth says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import manifest
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.filters import FiltersConfig
from data_prep.filters.motion import MotionConfig
from data_prep.samples import moving_shapes
from data_prep.samples.moving_shapes import CorpusConfig, FilmConfig, film
from infra.errors import UserError

SMALL = FilmConfig(width_px=64, height_px=48, fps=8, scene_s=1, scenes_max=2)

SLOW_IS_NOT_STILL = AnalysisConfig(filters=FiltersConfig(motion=MotionConfig(min_score=0.1)))


@settings(max_examples=20)
@given(st.integers(0, 2**40), st.integers(0, 1000))
def test_a_film_follows_from_its_seed_to_the_pixel(seed, number) -> None:
    first, again = film(SMALL, seed, number), film(SMALL, seed, number)
    assert json.dumps(first.truth()) == json.dumps(again.truth())
    frames = list(first.frames())
    np.testing.assert_array_equal(frames, list(again.frames()))
    assert len(frames) == len(first) == first.truth()["frames"]
    other = film(SMALL, seed + 1, number)
    assert json.dumps(other.truth()) != json.dumps(first.truth())


def test_size_and_rate_leave_the_movement_alone() -> None:
    large = FilmConfig(width_px=128, height_px=96, fps=16, scene_s=1, scenes_max=2)
    assert film(large, 5, 2).scenes == film(SMALL, 5, 2).scenes


def test_edges_are_soft_and_insides_are_whole() -> None:
    frame = next(film(FilmConfig(width_px=128, height_px=128, objects_max=1), 1, 0).frames())
    spread = frame.max(-1).astype(int) - frame.min(-1)
    assert spread.min() == 0  # the grey background
    inside = spread > 0.98 * spread.max()
    soft = (spread > 0) & ~inside
    assert 0.02 < inside.mean() < 0.08
    assert 0 < soft.sum() < 0.5 * inside.sum()


def test_prepare_reads_the_manifest_keeps_the_films_and_finds_the_cuts(tmp_path: Path) -> None:
    config = CorpusConfig(output=str(tmp_path / "corpus"), films=8, seed=1, scene_s=2.5)
    written = moving_shapes.write(config)
    table = manifest.read((written,)).table
    assert table.num_rows == 8
    several = 0
    for row in table.to_pylist():
        truth = json.loads(row["extra"])["truth"]
        clips = analyse(row["uri"], row["caption"], SLOW_IS_NOT_STILL)["clips"]
        bounds = [0, *truth["cuts"], truth["frames"]]
        assert [clip["start_frame"] for clip in clips] == bounds[:-1]
        assert [clip["end_frame"] for clip in clips] == bounds[1:]
        assert [clip["reason"] for clip in clips] == [None] * len(clips)
        several += len(clips) > 1
    assert several >= 2
    with pytest.raises(UserError, match="holds a corpus"):
        moving_shapes.write(config)


def test_a_run_writes_the_same_bytes_again(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        output = tmp_path / name
        moving_shapes.write(CorpusConfig(output=str(output), films=2, **SMALL.model_dump()))
        files.append({p.relative_to(output): p.read_bytes() for p in output.glob("**/*.*")})
    assert files[0] == files[1]
    assert len(files[0]) == 3


def test_the_command_explains_itself_and_refuses_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "data_prep.samples.moving_shapes"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    for key in CorpusConfig.model_fields:
        assert f"\n  {key}" in helped.stdout
    refused = subprocess.run(
        [*command, f"output={tmp_path}", "films=0"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: films: 0 is not allowed")
    assert refused.stderr.count("\n") == 1
