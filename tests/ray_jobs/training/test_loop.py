"""The change from one stage to the next, and clipping, on one rank of gloo without Ray."""

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.loader import Mix
from models.tokenizer.model import VideoTokenizer
from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.config import OptimizerConfig
from ray_jobs.training.engine import Engine
from ray_jobs.training.loop import Run
from tests.ray_jobs.training import runs, trials

pytestmark = pytest.mark.timeout(600)
ZERO: dict[str, dict[str, Any]] = {
    "0": {},
    "2-bf16": {"zero_stage": 2, "precision": "bf16"},
    "3": {"zero_stage": 3},
}
CLIPPED, RATE = 1e-4, 1e-3


class Watched(Run):
    """A run that keeps no checkpoints and no log, and looks at each engine when it is built."""

    def __init__(self, trial: trials.Trial, lengths: tuple[int, ...]) -> None:
        stages = tuple(
            trial.stage.model_copy(update={"name": f"stage{n}", "data": (Mix(frames=frames),)})
            for n, frames in enumerate(lengths)
        )
        work = replace(trial.work, stages=stages)
        super().__init__(work, rank=1, workers=1, train_state=TrainState(), skipped={})
        self.validation.due = lambda engine: None
        self.made: list[weakref.ref[Any]] = []
        self.alive: list[int] = []
        self.differ: list[float] = []

    def engine(self, *args: Any, **kwargs: Any) -> Engine:
        engine = super().engine(*args, **kwargs)
        self.alive.append(sum(made() is not None for made in self.made))
        self.made += [weakref.ref(engine.deepspeed), weakref.ref(engine.module)]
        if isinstance(engine.module, VideoTokenizer):
            self.differ.append(_differ(engine.module))
        return engine

    def _checkpoint(self, engine: Engine) -> None: ...

    def _finish(self, engine: Engine, state: object) -> None: ...


@torch.no_grad()
def _differ(tokenizer: VideoTokenizer) -> float:
    """Return how far the decoded frames of a still clip are from each other."""
    image_BCTHW = torch.rand(1, 3, 1, runs.SIZE, runs.SIZE) * 2 - 1
    tokenizer.eval()
    y_BCTHW = tokenizer.decode(tokenizer.encode(image_BCTHW.expand(-1, -1, 5, -1, -1)))
    return float((y_BCTHW - y_BCTHW[:, :, :1]).abs().max())


def _moved(data: dict[str, str], settings: dict[str, Any]) -> float:
    """Return how far a step moves the weights, with an AdamW that is nearly plain descent."""
    plain = OptimizerConfig(betas=(0.0, 0.0), eps=1.0, weight_decay=0.0)
    trial = trials.Trial("autoregressive", settings, data, optimizer=plain)
    run, engine = trial.begin()
    before = engine.full_state()
    trial.steps(run, engine, 1)
    after = engine.full_state()
    engine.close()
    return sum(float((after[name] - before[name]).square().sum()) for name in after) ** 0.5


def train(data: dict[str, str], file: str) -> None:
    found: dict[str, Any] = {"alive": {}, "moved": {}}
    for name, settings in ZERO.items():
        run = Watched(trials.Trial("autoregressive", settings, data), (5, 5, 5))
        run.all_stages(None)
        found["alive"][name] = run.alive
        found["moved"][name] = [
            _moved(data, {**settings, "gradient_clipping": at}) for at in (CLIPPED, 1e6)
        ]
    run = Watched(trials.Trial("tokenizer", {}, data), (1, 5, 5))
    run.all_stages(None)
    found["differ"] = run.differ
    Path(file).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("loop")
    trials.start(1, train, runs.write_data(folder), str(folder / "found.json"))
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", ZERO)
def test_a_finished_stages_engine_and_model_are_freed_before_the_next_begins(found, name: str):
    assert found["alive"][name] == [0, 0, 0]


@pytest.mark.parametrize("name", ZERO)
def test_gradients_are_clipped(found, name: str):
    clipped, free = found["moved"][name]
    assert free > 100 * CLIPPED * RATE
    assert clipped == pytest.approx(CLIPPED * RATE, rel=0.05)


def test_a_tokenizer_of_images_begins_with_videos_frame_by_frame(found):
    fresh, begins_videos, goes_on = found["differ"]
    assert fresh > 1e-2, "what it is after copies of the weights"
    assert begins_videos < 1e-5
    assert goes_on > 1e-4, "the change happens once"
