"""When a run's weights are judged: in its workers, which wait, or beside them."""

from typing import TYPE_CHECKING

import torch

from data_prep.loader import Sample
from data_prep.sampling import VALIDATION
from ray_jobs.training import batches, zero
from ray_jobs.training.beside import Beside, Judged, saved
from ray_jobs.training.checkpoints import Owed, Place
from ray_jobs.training.config import StageConfig
from ray_jobs.training.sinks import save_pictures
from ray_jobs.training.telemetry import Telemetry

if TYPE_CHECKING:
    from ray_jobs.training.loop import Engine, Work


class Validation:
    """The validations of one run, as one of its workers takes part in them.

    Args:
        work: of the run.
        rank: of this worker.
        place: where the run is.
        log: of the first worker; None on others.
    """

    def __init__(self, work: "Work", rank: int, place: Place, log: Telemetry | None) -> None:
        self._work, self._rank, self._place, self._log = work, rank, place, log
        self._group = rank // work.run.deepspeed.sequence_parallel
        self._last: Judged | None = None
        self._figures: dict[str, float] = {}
        self._stage, self._samples = work.stages[0], list[Sample]()
        asks = work.run.validation_beside
        self._is_beside = asks is not None
        self._beside = Beside(work, asks) if asks is not None and rank == 0 else None

    def begin_stage(self, stage: StageConfig) -> None:
        """Judge on what is held out of a stage's lengths."""
        self._stage, run = stage, self._work.run
        if not self._is_beside:
            self._figures = {}
            self._samples = batches.held_out(self._work.data, stage, run.validation_windows)

    def due(self, engine: "Engine") -> None:
        """Judge the weights of this step (every worker calls this)."""
        if self._is_beside:
            owed = Owed(self._place.step, self._place.stage)
            self._begin(owed, zero.full_state(engine.deepspeed))
        else:
            judged = self._judge(engine.module)
            if judged is not None:
                self._write(judged)

    def take(self, wait: bool = False) -> None:
        """Log what a validation beside the training has said since; `wait` until it has."""
        judged = None if self._beside is None else self._beside.take(wait)
        if judged is not None:
            self._write(judged)

    def again(self, engine: "Engine", checkpoint: str) -> None:
        """Begin the validation whose figures a checkpoint owes (every worker calls this)."""
        owed = self._place.owed
        if owed is not None and owed.step == self._place.step:
            self._begin(owed, zero.full_state(engine.deepspeed))
        elif owed is not None and self._beside is not None:
            self._begin(owed, saved(checkpoint))

    def report(self) -> dict[str, float]:
        """Return the newest figures for Ray Train, and of which step they are."""
        if not self._is_beside:
            return {"step": self._place.step, **self._figures}
        figures, self._figures = self._figures, {}  # each once, with the checkpoint after them
        return {"step": self._place.step, **figures}

    def save(self, folder: str) -> None:
        """Write into a checkpoint what is owed; before its place is written."""
        if self._beside is not None:
            self._beside.save(self._place, folder)

    def final(self, engine: "Engine", state: dict[str, torch.Tensor]) -> Judged | None:
        """Return what is said of the model that comes of the run; None on ranks with no say.

        Args:
            engine: holds its weights.
            state: the same weights, whole.
        """
        if not self._is_beside:
            return self._judge(engine.module)
        self.take(wait=True)
        last_step = self._last is not None and self._last.step == self._place.step
        if self._beside is None or (last_step and engine.ema is None):
            return self._last
        self._beside.begin(Owed(self._place.step, self._place.stage), state)
        return self._beside.take(wait=True)

    def close(self) -> None:
        """Give up what has not been said yet."""
        if self._beside is not None:
            self._beside.close()

    def _begin(self, owed: Owed, weights: dict[str, torch.Tensor] | bytes) -> None:
        if self._beside is not None:
            self.take(wait=True)
            self._beside.begin(owed, weights)

    def _judge(self, model: torch.nn.Module) -> Judged | None:
        if self._group and self._work.run.deepspeed.zero_stage < 3:
            return None  # a forward pass takes those that share sequences; under ZeRO 3, all
        model.eval()
        with torch.no_grad(), zero.own_writers_whole(model):
            judged = self._work.task.validate(model, self._samples)
        model.train()
        return None if self._rank else Judged(self._place.step, self._stage.name, *judged)

    def _write(self, judged: Judged) -> None:
        assert self._log is not None
        self._last = judged
        self._figures = {k: v for k, v in judged.figures.items() if isinstance(v, int | float)}
        if self._is_beside:
            self._figures["step"] = judged.step
        save_pictures(self._work.output, judged.step, judged.pictures)
        place = {"step": judged.step, "stage": judged.stage, "split": VALIDATION}
        self._log.write({**place, **judged.figures})
