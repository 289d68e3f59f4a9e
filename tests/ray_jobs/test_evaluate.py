import pytest

from infra import artifact, storage
from infra.config import build
from infra.errors import UserError
from infra.job import execute
from ray_jobs import evaluate
from tests.ray_jobs.reporting import synthetic


def test_the_plan_names_what_is_read_and_measured(tmp_path):
    uris = [synthetic.videos(tmp_path), synthetic.tokenizer(tmp_path)]
    lines = evaluate.plan(
        build(evaluate.EvaluateConfig, {"input": uris, "output": str(tmp_path / "report")})
    )
    assert lines[0].startswith("read tokenizer")
    assert "measure 2 videos, one curve point every 2 s" in lines
    assert not (tmp_path / "report").exists()


def test_no_report_of_a_report(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    synthetic.mark(folder, "report", {}, 1.0, {})
    with pytest.raises(UserError, match="'report'; expected clips or"):
        evaluate.plan(build(evaluate.EvaluateConfig, {"input": str(folder), "output": "/unused"}))


def test_windows_follow_the_setting():
    with pytest.raises(UserError, match="window_s"):
        build(evaluate.EvaluateConfig, {"input": "a", "output": "b", "window_s": 0})


@pytest.mark.ray
def test_the_job_writes_a_finished_artifact(tmp_path, ray_session):
    config = build(
        evaluate.EvaluateConfig,
        {"input": synthetic.every(tmp_path), "output": str(tmp_path / "report")},
    )
    summary = execute(evaluate.JOB, config)
    assert summary["videos"] == 2
    assert summary["unreadable_videos"] == 0
    assert set(summary["headline"].values()) == {"met"}
    artifact.read(config.output, ("report",))
    written = {path for path, _ in artifact.files(config.output)}
    assert {"report.html", "metrics.json", "curves/0000.png", "curves/0001.png"} <= written
    videos = storage.read_json(storage.join(config.output, "metrics.json"))["videos"]
    assert [video["file"] for video in videos] == ["videos/0000.mp4", "videos/0001.mp4"]
