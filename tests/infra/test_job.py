"""The command line that all jobs share."""

from pathlib import Path

import pytest

from infra import artifact, run_lock, storage
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, execute, main

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


def test_an_output_is_held_while_a_job_runs_and_clean_when_it_is_done(tmp_path: Path):
    (tmp_path / "in").write_text("x")
    config = JobConfig(input=(str(tmp_path / "in"),), output=str(tmp_path / "out"))
    refused: list[str] = []

    def run(config: JobConfig, output: artifact.Output) -> dict[str, int]:
        storage.write_text(output.path("parts", "a.txt"), "a")
        (tmp_path / "out" / "parts" / ".b.txt.0123abcd.partial").write_text("of a killed writer")
        if not refused:  # the same again, as by another terminal
            with pytest.raises(UserError) as error:
                execute(job, config)
            refused.append(str(error.value))
        return {"parts": 1}

    job = Job("toy", "toy", JobConfig, lambda config: [], run)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / run_lock.FILE).write_text("{}")  # killed before anything else was written
    assert execute(job, config) == {"parts": 1}
    assert "another run writes there (process" in refused[0]
    held = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*")}
    assert held == {"artifact.json", "config.yaml", "files.parquet", "parts", "parts/a.txt",
                    "summary.json"}  # fmt: skip
    assert [file for file, _ in artifact.files(config.output, "parts")] == ["parts/a.txt"]


def test_an_output_may_lie_below_its_input(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    config = JobConfig(input=(str(tmp_path),), output=str(tmp_path / "prepared"))

    def run(config: JobConfig, output: artifact.Output) -> dict[str, int]:
        storage.write_text(output.path("clips", "b.mp4"), "half of the work")
        if output.state is not artifact.State.RESUMED:
            raise KeyboardInterrupt
        return {"clips": 1}

    job = Job("toy", "toy", JobConfig, lambda config: [], run)
    with pytest.raises(KeyboardInterrupt):
        execute(job, config)
    assert execute(job, config) == execute(job, config) == {"clips": 1}
