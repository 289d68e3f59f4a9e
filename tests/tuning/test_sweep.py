"""Sweeps of quick trials on Ray Tune: the best is found, and nothing that has ended runs again."""

import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from ray import tune

from infra import config
from infra.artifact import begin
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job
from tuning import sweep
from tuning.config import SweepConfig, job_tree
from tuning.sweep import Trials

STEPS = 9


class Curve(JobConfig):
    """A job that only has parameters."""

    x: float = 0.0
    y: int = 0


def settings(output: Path, **keys: Any) -> SweepConfig:
    inputs = output.parent / "in"
    inputs.mkdir(exist_ok=True)
    tree = {
        "input": [str(inputs)],
        "output": str(output),
        "space": {"x": {"grid": [-1, 0, 2]}, "y": {"grid": [0, 1]}},
        "objective": "height",
        "resources": {"cpus_per_worker": 0.5},
        **keys,
    }
    return config.build(SweepConfig, tree)


def trials_of(config_: SweepConfig, dies: str = "") -> Trials:
    """Trials that walk down to (x - 1)² + y; the one of x=0, y=1 dies, when asked to."""

    job = Job("curve", "curve", Curve, lambda curve: ["a curve"], lambda curve, output: {})

    def run(point: dict, uri: str) -> dict[str, float]:
        settled = sweep.build(config_, job, point)
        Path(uri).mkdir(parents=True, exist_ok=True)
        with Path(uri, "calls").open("a") as calls:
            calls.write("x")
        if settled.x == 2 and settled.y == 1 and dies == "refused":
            raise UserError("it cannot be")
        if settled.x == 0 and settled.y == 1 and dies[:1] == "/" and not Path(dies).exists():
            if dies.endswith("once"):
                Path(dies).touch()
            os._exit(1)
        height = (settled.x - 1) ** 2 + settled.y
        for step in range(1, STEPS):
            tune.report({"height": height + STEPS - step, "step": step})
        return {"height": height, "step": STEPS}

    return Trials(job, lambda: nullcontext(run), ("height",))


def swept(folder: Path, dies: str = "", **keys: Any) -> tuple[dict[str, Any], list[dict]]:
    config_ = settings(folder / "out", **keys)
    trials = trials_of(config_, dies)
    sweep.plan(config_, trials)
    summary = sweep.run(config_, begin("sweep", config_), trials)
    return summary, pq.read_table(folder / "out" / "trials.parquet").to_pylist()


def calls(folder: Path) -> dict[str, int]:
    return {file.parent.name: len(file.read_text()) for file in folder.glob("out/trials/*/calls")}


@pytest.mark.ray
def test_a_grid_is_swept_and_its_best_config_stands_alone(ray_session, tmp_path: Path):
    summary, rows = swept(tmp_path, trials_at_once=2)
    assert (summary["trials"], summary["stopped"], summary["failed"]) == (6, 0, 0)
    assert summary["best"]["height"] == 1 == min(row["objective"] for row in rows)
    assert summary["steps"] == 6 * STEPS
    for row in rows:
        assert row["objective"] == (row["parameter.x"] - 1) ** 2 + row["parameter.y"]
        assert (row["state"], row["steps"]) == ("finished", STEPS)
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert config.build(Curve, {**best, "output": "/unused"}).y == 0
    assert (best["x"] - 1) ** 2 == 1
    assert Image.open(tmp_path / "out" / "response.png").size[0] > 800  # two panels
    assert not (tmp_path / "out" / "tune").exists()


@pytest.mark.ray
@pytest.mark.faults
def test_what_has_ended_is_not_run_again_and_what_was_lost_is(ray_session, tmp_path: Path):
    with pytest.raises(UserError, match=r"1 trials were lost .*the same command goes on"):
        swept(tmp_path, dies=str(tmp_path / "always"))
    first = calls(tmp_path)
    assert sorted(first.values()) == [1] * 5 + [1 + sweep.MOST_LOST]
    assert len(list(tmp_path.glob("out/records/*.json"))) == 5
    summary, rows = swept(tmp_path)
    assert summary["trials"] == 6 == len(rows)
    again = {name: count - first[name] for name, count in calls(tmp_path).items()}
    assert sorted(again.values()) == [0] * 5 + [1]


@pytest.mark.ray
@pytest.mark.faults
def test_a_trial_whose_process_dies_is_begun_again(ray_session, tmp_path: Path):
    summary, _ = swept(tmp_path, dies=str(tmp_path / "once"))
    assert (summary["trials"], summary["failed"]) == (6, 0)


@pytest.mark.ray
def test_values_that_cannot_be_are_a_row_and_stop_nothing(ray_session, tmp_path: Path):
    summary, rows = swept(tmp_path, dies="refused")
    assert summary["failed"] == 1
    failed = next(row for row in rows if row["state"] == "failed")
    assert (failed["objective"], failed["error"]) == (None, "it cannot be")


@pytest.mark.ray
def test_trials_that_are_behind_are_stopped(ray_session, tmp_path: Path):
    space = {"x": {"grid": [1.0, 1.1, 5.0, 6.0, 7.0, 8.0]}}
    asha = {"grace_steps": 2, "reduction_factor": 2}
    summary, rows = swept(tmp_path, space=space, asha=asha)
    assert summary["best"]["x"] == 1.0
    states = {row["parameter.x"]: row["state"] for row in rows}
    assert states[8.0] == "stopped"
    assert summary["steps"] < 6 * STEPS
    assert summary["stopped"] == sum(state == "stopped" for state in states.values())


@pytest.mark.ray
def test_optuna_goes_on_from_what_is_known(ray_session, tmp_path: Path):
    space = {"x": {"uniform": [-3, 5]}, "y": {"integer": [0, 3]}}
    keys = {"space": space, "search": "optuna"}
    with pytest.raises(UserError, match=r"budget.trials: missing; search=optuna needs it"):
        swept(tmp_path, **keys)
    summary, rows = swept(tmp_path, **keys, budget={"trials": 6})
    assert len({row["trial"] for row in rows}) == 6 == summary["trials"]
    kept = calls(tmp_path)
    for record in sorted(tmp_path.glob("out/records/*.json"))[:2]:
        record.unlink()
    summary, rows = swept(tmp_path, **keys, budget={"trials": 6})
    assert summary["trials"] == 6
    assert len([name for name, count in calls(tmp_path).items() if kept.get(name) == count]) >= 4


@pytest.mark.ray
def test_a_budget_of_steps_ends_the_sweep(ray_session, tmp_path: Path):
    summary, rows = swept(tmp_path, budget={"steps": 2 * STEPS})
    assert 2 <= len(rows) <= 3
    assert 2 * STEPS <= summary["steps"] <= 3 * STEPS
    assert math.isfinite(summary["best"]["height"])


@pytest.mark.ray
def test_more_than_the_cluster_has_is_refused_before_any_trial(ray_session, tmp_path: Path):
    with pytest.raises(UserError, match=r"3 trials of 2 workers with 8 CPU need 48; the cluster"):
        swept(tmp_path, trials_at_once=3, resources={"workers": 2, "cpus_per_worker": 8})
    assert calls(tmp_path) == {}


def test_a_trials_config_leaves_the_sweeps_alone(tmp_path: Path):
    stages = [{"name": "a", "steps": 1}, {"name": "b", "steps": 2}]
    config_ = settings(tmp_path / "out", job={"stages": stages})
    before = config.dump(config_)
    tree = job_tree(config_, {"stages.b.steps": 7})
    assert [stage["steps"] for stage in tree["stages"]] == [1, 7]
    assert config.dump(config_) == before


def test_what_no_trial_reports_and_what_no_job_has_is_refused(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"objective: depth is reported by no trial; allowed are he"
    ):
        swept(tmp_path, objective="depth")
    with pytest.raises(UserError, match=r"space: x=-1, z=1: z: unknown key; .*allowed: .*x, y"):
        swept(tmp_path, space={"x": {"grid": [-1]}, "z": {"grid": [1]}})
    with pytest.raises(UserError, match="space: empty"):
        swept(tmp_path, space={})
    with pytest.raises(UserError, match=r"config file .*/nowhere/config.yaml: not found"):
        swept(tmp_path, base=str(tmp_path / "nowhere"))
