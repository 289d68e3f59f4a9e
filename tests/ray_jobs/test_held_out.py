"""held_out: the longest held-out clips become films that are measured like any other."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import Decoder
from infra import artifact
from infra.config import build
from infra.errors import UserError
from ray_jobs import held_out, video_table
from ray_jobs.evaluation import measures_table
from ray_jobs.held_out import HeldOutConfig
from tests import shard_artifacts
from tests.ray_jobs.reporting import synthetic
from tests.shard_artifacts import FRAMES, row, window

CLIPS = ((6, 16, 24), (9, 16, 24), (9, 24, 16), (4, 16, 24), (1, 16, 24), (12, 15, 24))


def frames_of(clip: int) -> np.ndarray:
    """Return a clip in a grey of its own, darker from frame to frame."""
    length, height, width = CLIPS[clip]
    grey = 20 * clip + 100 - np.arange(length)[:, None, None, None]
    return np.broadcast_to(grey, (length, height, width, 3)).astype(np.uint8)


def frames(folder: Path, split: str = "validation") -> str:
    clips = [
        row(f"c{n}", [window(frames_of(n), CLIPS[n][0])], split=split, caption=f"clip {n}")
        for n in range(len(CLIPS))
    ]
    seen = row("seen", [window(np.zeros((50, 16, 24, 3), np.uint8), 50)], split="train")
    return shard_artifacts.write(folder, FRAMES, [[seen, *clips[:3]], clips[3:]], per_group=3)


def made(source: str, folder: Path, **keys: object) -> str:
    settings = build(HeldOutConfig, {"input": [source], "output": str(folder), **keys})
    output = artifact.begin("videos", settings)
    artifact.finish(output, "videos", held_out.run(settings, output), 0.0)
    return output.uri


def test_the_longest_clips_of_even_size_become_films(tmp_path: Path):
    videos = made(frames(tmp_path), tmp_path / "made", videos=3, max_frames=8)
    rows = list(video_table.read(videos))
    assert [each["settings"]["clip_id"] for each in rows] == ["c1", "c2", "c0"]
    assert [each["prompt"] for each in rows] == ["clip 1", "clip 2", "clip 0"]
    assert [each["frames"] for each in rows] == [8, 8, 6]
    for each, clip in zip(rows, (1, 2, 0), strict=True):
        assert each["settings"]["kind"] == video_table.HELD_OUT
        with Decoder(Path(videos, each["file"])) as decoder:
            film = np.concatenate([chunk.frames_THWC for chunk in decoder.frames(long_side_px=24)])
        assert film.shape[1:3] == (each["height"], each["width"]) == CLIPS[clip][1:]
        assert np.abs(film.astype(int) - frames_of(clip)[: len(film)]).max() < 8


def test_they_are_measured_like_generated_ones(tmp_path: Path):
    videos = made(frames(tmp_path), tmp_path / "made")
    records = list(measures_table.read(synthetic.measures(tmp_path, videos)))
    assert len(records) == 4
    assert all(record["problem"] is None for record in records)
    assert records[0]["brightness_change"] == pytest.approx(0, abs=1)  # one window
    assert {record["settings"]["kind"] for record in records} == {"held_out"}


def test_the_plan_says_how_many_and_how_long(tmp_path: Path):
    source = frames(tmp_path)
    settings = build(HeldOutConfig, {"input": [source], "output": "/unused", "max_frames": 8})
    assert held_out.plan(settings) == ["4 held-out clips of 4 to 8 frames"]
    nothing = build(
        HeldOutConfig, {"input": [frames(tmp_path / "b", "train")], "output": "/unused"}
    )
    with pytest.raises(UserError, match=r"is held out; raise validation_share"):
        held_out.plan(nothing)
