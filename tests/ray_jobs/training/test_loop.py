"""The change from one stage to the next, on one rank of gloo without Ray."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.engine import Engine
from ray_jobs.training.loop import Run
from tests.ray_jobs.training import runs, trials

ZERO = {"0": {}, "2-bf16": {"zero_stage": 2, "precision": "bf16"}, "3": {"zero_stage": 3}}


class Watched(Run):
    """A run that keeps no checkpoints, and notes which engines live when another is built."""

    def __init__(self, trial: trials.Trial) -> None:
        names = ("a", "b", "c")
        stages = tuple(trial.stage.model_copy(update={"name": name}) for name in names)
        work = replace(trial.work, stages=stages)
        super().__init__(work, rank=1, workers=1, train_state=TrainState(), skipped={})
        self.made: list[weakref.ref] = []
        self.alive: list[int] = []

    def engine(self, *args, **kwargs) -> Engine:
        self.alive.append(sum(made() is not None for made in self.made))
        engine = super().engine(*args, **kwargs)
        self.made += [weakref.ref(engine.deepspeed), weakref.ref(engine.module)]
        return engine

    def _checkpoint(self, engine: Engine) -> None: ...

    def _finish(self, engine: Engine, state: object) -> None: ...


def train_three_stages(data: dict[str, str], found: str) -> None:
    alive = {}
    for name, settings in ZERO.items():
        run = Watched(trials.Trial("autoregressive", settings, data))
        run.validation.due = lambda engine: None
        run.all_stages(None)
        alive[name] = run.alive
    Path(found).write_text(json.dumps(alive))


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    folder = tmp_path_factory.mktemp("loop")
    trials.start(1, train_three_stages, runs.write_data(folder), str(folder / "alive.json"))
    return json.loads((folder / "alive.json").read_text())


@pytest.mark.parametrize("name", ZERO)
def test_a_finished_stages_engine_and_model_are_freed_before_the_next_begins(alive, name: str):
    assert alive[name] == [0, 0, 0]
