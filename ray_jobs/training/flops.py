"""Operations of a training step, counted once for each shape of samples."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from data_prep.sample import Sample, Shape
from ray_jobs.training.config import StageConfig
from ray_jobs.training.engine import Engine
from ray_jobs.training.task import Task


class StepFlops:
    """Counts a forward pass without gradient by torch's counter, times three for the backward."""

    def __init__(self, task: Task) -> None:
        """Count for the steps of a task."""
        self._task = task
        self._of_one: dict[Shape, float] = {}

    def count(self, engine: Engine, stage: StageConfig, samples: list[Sample]) -> float:
        """Return the floating-point operations of a step on `samples`."""
        shape = samples[0].shape
        if shape not in self._of_one:
            engine.module.eval()  # so that the pass leaves no trace
            eager = torch.compiler.set_stance("force_eager")  # compiled operations are not counted
            with torch.no_grad(), eager, FlopCounterMode(display=False) as counter:
                self._task.loss(engine.deepspeed, samples[:1], stage)
            engine.module.train()
            self._of_one[shape] = 3.0 * counter.get_total_flops()
        return self._of_one[shape] * len(samples)
