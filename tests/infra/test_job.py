"""The command line that all jobs share."""

from pathlib import Path

import pytest

from infra.config import JobConfig
from infra.job import Job, main

JOB = Job(
    "toy", "toy", JobConfig, lambda config: ["nothing"], lambda *_: {},
    lambda config: [f"seed {config.seed}"],
)  # fmt: skip


def test_overrides_may_stand_on_both_sides_of_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(JOB, [f"input={tmp_path}", "--dry-run", f"output={tmp_path}/out", "seed=7"])
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == ["# plan:", "#   nothing", "#   seed 7"]
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(JOB, ["input=x", "output=y", "sede=7"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: sede: unknown key; did you mean seed?")
