"""report: what it reads, and that a run of it is an artifact."""

import pytest

from infra import artifact
from infra.config import build
from infra.errors import UserError
from infra.job import execute
from ray_jobs import report
from tests.ray_jobs.reporting import synthetic


def test_the_job_writes_a_finished_artifact(tmp_path):
    uris = synthetic.every(tmp_path)
    config = build(report.ReportConfig, {"input": uris, "output": str(tmp_path / "report")})
    lines = report.plan(config)
    assert lines[0] == f"read clips {uris[0]}"
    assert lines[-2] == f"read measures {uris[-1]}"
    assert report.read_all(uris).of_film is not None
    summary = execute(report.JOB, config)  # draws on the driver, and needs no cluster
    assert (summary["artifacts"], summary["videos_shown"]) == (8, 2)
    missed = {name for name, verdict in summary["headline"].items() if verdict == "missed"}
    assert missed == {"sharpness", "sharpness_ratio"}  # the grain goes from pass to pass
    artifact.read(config.output, ("report",))
    written = {path for path, _ in artifact.files(config.output)}
    curves = {path for path in written if path.startswith("curves/")}
    assert {"report.html", "headline.json"} <= written
    assert len(curves) == 2


def test_no_report_of_a_report(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    synthetic.mark(folder, "report", {}, 1.0, {})
    with pytest.raises(UserError, match="'report'; expected clips or"):
        report.plan(build(report.ReportConfig, {"input": str(folder), "output": "/unused"}))
