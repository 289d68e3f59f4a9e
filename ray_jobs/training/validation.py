"""Validation on held-out samples: in the workers, which wait, or asynchronously."""

import torch

from data_prep.sample import Sample
from data_prep.sampling import VALIDATION
from ray_jobs.training import batches, zero
from ray_jobs.training.async_validation import AsyncValidation, ValidationResult, saved
from ray_jobs.training.checkpoints import PendingValidation, TrainState
from ray_jobs.training.config import StageConfig
from ray_jobs.training.engine import Engine
from ray_jobs.training.sinks import save_pictures
from ray_jobs.training.telemetry import Telemetry
from ray_jobs.training.work import Work


class Validation:
    """The validations of one run, as one of its workers takes part in them.

    Args:
        work: of the run.
        rank: of this worker.
        train_state: position of the run.
        log: of the first worker; None on others.
    """

    def __init__(
        self, work: Work, rank: int, train_state: TrainState, log: Telemetry | None
    ) -> None:
        self._work, self._rank, self._train_state, self._log = work, rank, train_state, log
        self._group = rank // work.run.deepspeed.sequence_parallel
        self._last: ValidationResult | None = None
        self._figures: dict[str, float] = {}
        self._stage, self._samples = work.stages[0], list[Sample]()
        asks = work.run.validation_async
        self._is_async = asks is not None
        self._async = AsyncValidation(work, asks) if asks is not None and rank == 0 else None

    def begin_stage(self, stage: StageConfig) -> None:
        """Judge on what is held out of a stage's lengths."""
        self._stage, run = stage, self._work.run
        if not self._is_async:
            self._figures = {}
            self._samples = batches.held_out(self._work.data, stage, run.validation_windows)

    def due(self, engine: Engine) -> None:
        """Judge the weights of this step (every worker calls this)."""
        if self._is_async:
            pending = PendingValidation(self._train_state.step, self._train_state.stage)
            self._begin(pending, engine.full_state())
        else:
            judged = self._judge(engine.module)
            if judged is not None:
                self._write(judged)

    def take(self, wait: bool = False) -> None:
        """Log the result of an asynchronous validation that has ended; `wait` for one that runs."""
        judged = None if self._async is None else self._async.take(wait)
        if judged is not None:
            self._write(judged)

    def again(self, engine: Engine, checkpoint: str) -> None:
        """Restart the validation that a checkpoint names as pending (every worker calls this)."""
        pending = self._train_state.pending
        if pending is not None and pending.step == self._train_state.step:
            self._begin(pending, engine.full_state())
        elif pending is not None and self._async is not None:
            self._begin(pending, saved(checkpoint))

    def report(self) -> dict[str, float]:
        """Return the newest figures for Ray Train, and of which step they are."""
        if not self._is_async:
            return {"step": self._train_state.step, **self._figures}
        figures, self._figures = self._figures, {}  # each once, with the checkpoint after them
        return {"step": self._train_state.step, **figures}

    def save(self, folder: str) -> None:
        """Write into a checkpoint the pending validation; before its state is written."""
        if self._async is not None:
            self._async.save(self._train_state, folder)

    def final(self, engine: Engine, state: dict[str, torch.Tensor]) -> ValidationResult | None:
        """Validate the run's final model; None on ranks that do not report.

        Args:
            engine: holds its weights.
            state: the same weights, whole.
        """
        if not self._is_async:
            return self._judge(engine.module)
        self.take(wait=True)
        last_step = self._last is not None and self._last.step == self._train_state.step
        if self._async is None or (last_step and engine.ema is None):
            return self._last
        self._async.begin(PendingValidation(self._train_state.step, self._train_state.stage), state)
        return self._async.take(wait=True)

    def close(self) -> None:
        """Cancel a validation that still runs."""
        if self._async is not None:
            self._async.close()

    def _begin(self, pending: PendingValidation, weights: dict[str, torch.Tensor] | bytes) -> None:
        if self._async is not None:
            self.take(wait=True)
            self._async.begin(pending, weights)

    def _judge(self, model: torch.nn.Module) -> ValidationResult | None:
        if self._group and self._work.run.deepspeed.zero_stage < 3:
            return None  # a forward pass takes those that share sequences; under ZeRO 3, all
        model.eval()
        with torch.no_grad(), zero.own_writers_whole(model):
            judgement = self._work.task.validate(model, self._samples, self._stage)
        model.train()
        if self._rank:
            return None
        return ValidationResult(self._train_state.step, self._stage.name, judgement)

    def _write(self, result: ValidationResult) -> None:
        assert self._log is not None
        self._last, figures = result, result.judgement.figures
        self._figures = {k: v for k, v in figures.items() if isinstance(v, int | float)}
        if self._is_async:
            self._figures["step"] = result.step
        save_pictures(self._work.output, result.step, result.judgement.pictures)
        position = {"step": result.step, "stage": result.stage, "split": VALIDATION}
        self._log.write({**position, **figures})
