"""Asynchronous validation: a Ray task judges the weights of a step while training goes on.

At most one runs at a time; the next one that comes due waits for it. Until its figures arrive,
checkpoints name it as pending, and hold its weights where these are not the checkpoint's own: a
run that resumes from such a checkpoint starts the task again.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from safetensors.torch import load, save

from ray_jobs.training import batches
from ray_jobs.training.checkpoints import PendingValidation, TrainState
from ray_jobs.training.config import AsyncValidationConfig, StageConfig
from ray_jobs.training.engine import fill, fresh_model
from ray_jobs.training.task import Judgement
from ray_jobs.training.work import Work

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FILE = "pending_validation.safetensors"


@dataclass(frozen=True)
class ValidationResult:
    """What one validation gave."""

    step: int
    stage: str
    judgement: Judgement


class AsyncValidation:
    """The validations of one run, held by its first worker.

    Args:
        work: of the run.
        settings: resources of the validation task.
    """

    def __init__(self, work: Work, settings: AsyncValidationConfig) -> None:
        self._work, self._settings = work, settings
        self._pending: PendingValidation | None = None
        self._weights: Any = None  # in the object store, as safetensors
        self._task: Any = None

    def begin(self, pending: PendingValidation, state: dict[str, torch.Tensor] | bytes) -> None:
        """Start to validate full weights; the result of the one before must have been taken."""
        assert self._pending is None
        asks = self._settings
        task: Any = ray.remote(judge)
        self._pending = pending
        self._weights = ray.put(save(state) if isinstance(state, dict) else state)
        self._task = task.options(
            num_cpus=asks.cpus,
            num_gpus=asks.gpus,
            scheduling_strategy="DEFAULT",  # not in the workers' placement group
        ).remote(self._work, self._work.stages[pending.stage], self._weights)

    def take(self, wait: bool) -> ValidationResult | None:
        """Return the running validation's result, once; without `wait`, None while it runs."""
        if self._pending is None or not (wait or ray.wait([self._task], timeout=0)[0]):
            return None
        judgement: Judgement = ray.get(self._task)
        name = self._work.stages[self._pending.stage].name
        result = ValidationResult(self._pending.step, name, judgement)
        self._pending = self._weights = self._task = None
        return result

    def save(self, train_state: TrainState, folder: str) -> None:
        """Write into a checkpoint what is needed to repeat the pending validation."""
        train_state.pending = self._pending
        if self._pending is not None and self._pending.step != train_state.step:
            Path(folder, _FILE).write_bytes(ray.get(self._weights))

    def close(self) -> None:
        """Cancel the running validation."""
        if self._task is not None:
            ray.cancel(self._task, force=True)


def saved(folder: str) -> bytes:
    """Return the weights that :meth:`AsyncValidation.save` wrote into a checkpoint."""
    return Path(folder, _FILE).read_bytes()


def judge(work: Work, stage: StageConfig, weights: bytes) -> Judgement:
    """Validate weights in the precision of the run's forward passes."""
    settings = work.run.validation_async
    assert settings is not None
    torch.set_num_threads(max(1, math.floor(settings.cpus)))
    model = fresh_model(work)
    fill(model, load(weights))
    model.to("cuda" if settings.gpus else "cpu", _DTYPES[work.run.deepspeed.precision])
    model.eval()
    with torch.no_grad():
        samples = batches.held_out(work.data, stage, work.run.validation_windows)
        return work.task.validate(model, samples, stage)
