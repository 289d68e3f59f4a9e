"""Validation beside the training: a Ray task judges the weights of a step while others follow.

At most one runs at a time; a validation that comes due before it has ended waits for it. Until its
figures are there, checkpoints say that they are owed, and have the weights if these are not
their own: a run that goes on from one has the task done again.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
from safetensors.torch import load, save

from infra.seeding import derive
from ray_jobs.training import batches
from ray_jobs.training.checkpoints import Owed, Place
from ray_jobs.training.config import BesideConfig, StageConfig

if TYPE_CHECKING:
    from ray_jobs.training.loop import Work

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FILE = "owed.safetensors"


@dataclass(frozen=True)
class Judged:
    """What a validation said."""

    step: int
    stage: str
    figures: dict[str, Any]
    pictures: dict[str, bytes]


class Beside:
    """The validations of one run, held by its first worker.

    Args:
        work: of the run.
        settings: what a task asks of the cluster.
    """

    def __init__(self, work: "Work", settings: BesideConfig) -> None:
        self._work, self._settings = work, settings
        self._owed: Owed | None = None
        self._weights: Any = None  # in the object store, as safetensors
        self._task: Any = None

    def begin(self, owed: Owed, state: dict[str, torch.Tensor] | bytes) -> None:
        """Start to judge whole weights; what was begun before must have been taken."""
        assert self._owed is None
        asks = self._settings
        task: Any = ray.remote(judge)
        self._owed = owed
        self._weights = ray.put(save(state) if isinstance(state, dict) else state)
        self._task = task.options(
            num_cpus=asks.cpus,
            num_gpus=asks.gpus,
            scheduling_strategy="DEFAULT",  # not in the workers' placement group
        ).remote(self._work, self._work.stages[owed.stage], self._weights)

    def take(self, wait: bool) -> Judged | None:
        """Return what has not been taken yet; without `wait`, None if it is not there yet."""
        if self._owed is None or not (wait or ray.wait([self._task], timeout=0)[0]):
            return None
        figures, pictures = ray.get(self._task)
        judged = Judged(
            self._owed.step, self._work.stages[self._owed.stage].name, figures, pictures
        )
        self._owed = self._weights = self._task = None
        return judged

    def save(self, place: Place, folder: str) -> None:
        """Write into a checkpoint what it needs to have an owed validation done again."""
        place.owed = self._owed
        if self._owed is not None and self._owed.step != place.step:
            Path(folder, _FILE).write_bytes(ray.get(self._weights))

    def close(self) -> None:
        """Give up what was not taken."""
        if self._task is not None:
            ray.cancel(self._task, force=True)


def saved(folder: str) -> bytes:
    """Return the weights that :meth:`Beside.save` wrote into a checkpoint."""
    return Path(folder, _FILE).read_bytes()


def judge(
    work: "Work", stage: StageConfig, weights: bytes
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what the task says of weights, in the precision that the run's passes have."""
    settings = work.run.validation_beside
    assert settings is not None
    torch.set_num_threads(max(1, math.floor(settings.cpus)))
    torch.manual_seed(derive(work.seed, "weights"))
    model = work.task.build()
    model.load_state_dict(load(weights))
    model.to("cuda" if settings.gpus else "cpu", _DTYPES[work.run.deepspeed.precision])
    model.eval()
    with torch.no_grad():
        return work.task.validate(
            model, batches.held_out(work.data, stage, work.run.validation_windows)
        )
