"""Asynchronous validation: none is lost (`test_zero` and `test_engine` compare its figures)."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.errors import UserError
from infra.job import execute
from ray_jobs import train_tokenizer
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.training import launch as launching
from ray_jobs.training.config import AsyncValidationConfig
from ray_jobs.training.loop import train
from tests.ray_jobs.training import test_engine
from tests.ray_jobs.training.runs import assert_same_log

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
pixels = test_engine.pixels
BESIDE: dict[str, Any] = {"validation_async": {"cpus": 1}}
EVERY = {"validate_every_steps": 2, "checkpoint_every_steps": 1}


@dataclass(frozen=True)
class Held:
    """A task whose validation does not end in the run that is to be killed.

    Attributes:
        task: what is trained.
        gate: a pipe that nobody writes to; not there: nothing is held.
    """

    task: TokenizerTask
    gate: str

    def __getattr__(self, name: str) -> Any:
        if name in ("task", "__setstate__", "__getstate__"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def validate(self, model: Any, samples: Any, stage: Any) -> Any:
        if os.path.exists(self.gate):
            Path(self.gate).read_bytes()
        return self.task.validate(model, samples, stage)


def stop_in_step_4(settings_: dict[str, Any]) -> None:
    from ray_jobs.training import loop

    class Killed(loop.Run):
        def _step(self, *args, **named):
            if self.train_state.step == 3:
                raise SystemError("killed here")
            return super()._step(*args, **named)

    loop.Run = Killed
    train(settings_)


@pytest.mark.faults
def test_a_validation_that_a_checkpoint_owes_is_done_again(
    ray_session: None, pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = tmp_path / "inline"
    execute(train_tokenizer.JOB, test_engine.settings(pixels, inline, steps=4, **EVERY))
    killed = tmp_path / "killed"
    settings = test_engine.settings(pixels, killed, steps=4, **EVERY, **BESIDE)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with monkeypatch.context() as patch:
        patch.setattr(launching, "train", stop_in_step_4)
        patch.setattr(
            train_tokenizer, "TokenizerTask", lambda *args: Held(TokenizerTask(*args), str(gate))
        )
        with pytest.raises(Exception, match="killed here"):
            execute(train_tokenizer.JOB, settings)
    gate.unlink()
    newest = {
        json.loads(f.read_text())["step"]: f for f in killed.glob("checkpoints/*/train_state.json")
    }
    assert json.loads(newest[2].read_text())["pending"] == {"step": 2, "stage": 0}
    assert not (newest[2].parent / "pending_validation.safetensors").exists()  # they are its own
    assert json.loads(newest[3].read_text())["pending"] == {"step": 2, "stage": 0}
    assert (newest[3].parent / "pending_validation.safetensors").exists()
    earlier = Path(shutil.copytree(killed, tmp_path / "earlier"))
    (earlier / newest[3].parent.relative_to(killed) / "pending_validation.safetensors").write_bytes(
        b"damaged"
    )
    execute(train_tokenizer.JOB, settings)
    assert_same_log(killed, inline)
    execute(train_tokenizer.JOB, settings.model_copy(update={"output": str(earlier)}))
    assert_same_log(earlier, inline)


def test_what_it_asks_for_counts(ray_session: None, pixels: str, tmp_path: Path) -> None:
    settings = test_engine.settings(pixels, tmp_path / "out")
    run = settings.run.model_copy(update={"validation_async": AsyncValidationConfig(cpus=999)})
    with pytest.raises(
        UserError, match=r"1 workers of 1 CPU plus 999 CPU for asynchronous validation"
    ):
        execute(train_tokenizer.JOB, settings.model_copy(update={"run": run}))
