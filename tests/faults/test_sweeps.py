"""A sweep whose driver or trial is killed ends as one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from infra import storage
from tests.ray_jobs.training import runs

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(1800)]
JOB = {
    "model": {
        "vocabulary": {"text": 20, "video": runs.CODES}, "hidden": 16, "intermediate": 32,
        "layers": 2, "heads": 2, "max_text_tokens": 4, "max_positions": 32,
    },
    "early_frames": 1,
    "stages": [
        {"name": "images", "steps": 4, "batch_size": 4, "data": [{"frames": 1}]},
        {"name": "clips", "steps": 6, "batch_size": 4, "data": [{"frames": 5}],
         "learning_rate": 1e-2},
    ],
    "run": {"checkpoint_every_steps": 2, "validate_every_steps": 2, "log_every_steps": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the config of a sweep of three trials."""
    folder = tmp_path_factory.mktemp("sweep")
    tree = {
        "input": [runs.write_data(folder)["tokens"]],
        "job": JOB,
        "space": {"stages.clips.early_frame_weight": {"grid": [0.0, 1.0, 4.0]}},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return folder / "sweep.yaml"


def command(sweep: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "tuning.loss_weight", f"--config={sweep}", f"output={output}"]


def run(arguments: list[str], log: Path) -> None:
    with log.open("ab") as sink:
        code = subprocess.run(arguments, cwd=ROOT, stdout=sink, stderr=sink).returncode
    assert code == 0, log.read_text(errors="replace")[-4000:]


def run_until(arguments: list[str], log: Path, done: Callable[[], bool]) -> subprocess.Popen:
    """Start a driver, and return it when something has come to be."""
    with log.open("ab") as sink:  # not a pipe: Ray's processes outlive a killed driver
        driver = subprocess.Popen(arguments, cwd=ROOT, stdout=sink, stderr=sink)
    while not done():
        assert driver.poll() is None, log.read_text(errors="replace")[-4000:]
        time.sleep(0.05)
    return driver


def second_trial_is_under_way(output: Path) -> bool:
    checkpoints = {
        file.parts[-4] for file in output.glob("trials/*/checkpoints/*/train_state.json")
    }
    return len(list(output.glob("records/*.json"))) == 1 and len(checkpoints) == 2


def outcome(output: Path) -> list[dict]:
    rows = pq.read_table(output / "trials.parquet").to_pylist()
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_killed_sweeps_end_as_one_left_alone(sweep: Path, tmp_path: Path):
    straight, driver_killed, trial_killed = (tmp_path / name for name in ("a", "b", "c"))
    log = tmp_path / "log"
    run(command(sweep, straight), log)
    expected = outcome(straight)
    assert len({row["objective"] for row in expected}) == 3

    arguments = command(sweep, driver_killed)
    driver = run_until(arguments, log, lambda: second_trial_is_under_way(driver_killed))
    driver.kill()
    driver.wait()
    ended = {file: file.stat().st_mtime_ns for file in driver_killed.glob("trials/*/artifact.json")}
    assert ended
    run(arguments, log)
    assert outcome(driver_killed) == expected
    assert all(file.stat().st_mtime_ns == at for file, at in ended.items())

    arguments = command(sweep, trial_killed)
    driver = run_until(arguments, log, lambda: second_trial_is_under_way(trial_killed))
    children = psutil.Process(driver.pid).children(recursive=True)
    trials = [child for child in children if "ImplicitFunc" in " ".join(child.cmdline())]
    assert trials, [child.cmdline() for child in children]
    for trial in trials:
        os.kill(trial.pid, signal.SIGKILL)
    assert driver.wait() == 0, log.read_text(errors="replace")[-4000:]
    assert outcome(trial_killed) == expected

    best = storage.read_json(str(straight / "summary.json"))["best"]
    again = [sys.executable, "-m", "ray_jobs.train_autoregressive",
             f"--config={straight / 'best.yaml'}", f"output={tmp_path / 'best'}"]  # fmt: skip
    run(again, log)
    said = storage.read_json(str(tmp_path / "best" / "summary.json"))["validation"]["loss"]
    assert said == best["loss"]
