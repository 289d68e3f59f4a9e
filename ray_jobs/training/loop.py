"""The stage loop that every Ray Train worker runs."""

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import ray.train
import torch
import torch.distributed as dist
from torch import nn

from data_prep.loader import Loader
from data_prep.sample import Sample
from data_prep.sampling import TRAIN
from infra.log import logger
from infra.progress import Progress
from infra.seeding import derive
from ray_jobs.training import bad_loss, batches, checkpoint_index, checkpoints, telemetry
from ray_jobs.training import engine as engines
from ray_jobs.training.bad_loss import BadLoss, Skipped
from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.config import StageConfig
from ray_jobs.training.engine import Engine
from ray_jobs.training.flops import StepFlops
from ray_jobs.training.ranks import any_rank, mean_over_ranks, sequence_group
from ray_jobs.training.results import finish
from ray_jobs.training.sinks import Lines, Prometheus, TensorBoard
from ray_jobs.training.task import State
from ray_jobs.training.trackers import trackers
from ray_jobs.training.validation import Validation
from ray_jobs.training.work import Work


def train(settings: dict[str, Any]) -> None:
    """Train through all stages, from the last whole checkpoint (the Ray Train loop)."""
    work: Work = settings["work"]
    torch.set_num_threads(work.threads)
    rank = ray.train.get_context().get_world_rank()
    workers = ray.train.get_context().get_world_size()
    skipped = Skipped(work.output, work.run.bad_loss, rank)
    sharing = sequence_group(work.run.deepspeed.sequence_parallel)
    while True:
        with _last_whole(work.output, rank, workers) as folder:
            train_state = checkpoints.read_train_state(folder) if folder else TrainState()
            train_state.workers = workers
            try:
                Run(work, rank, workers, train_state, skipped.steps, sharing).all_stages(folder)
                return
            except BadLoss as bad:
                if not skipped.add(bad):
                    return


@contextlib.contextmanager
def _last_whole(output: str, rank: int, workers: int) -> Iterator[str | None]:
    """Yield a folder with the newest checkpoint that all ranks find whole; None without one."""
    for checkpoint in checkpoint_index.newest_first(output):
        with checkpoint.as_directory() as folder:
            found = checkpoints.problem(folder, rank, workers)
            if found is not None:
                logger.warning(
                    f"{checkpoint.path}: damaged ({found}); going back to the one before"
                )
            if not any_rank(found is not None):
                yield folder
                return
    yield None


class Run:
    """One attempt of a run, as one of its workers takes part in it.

    Args:
        work: of the run.
        rank: of this worker.
        workers: how many there are.
        train_state: position of the run; it moves on with the steps.
        skipped: steps to skip, and why.
        sharing: the ranks that share sequences with this one.
    """

    def __init__(
        self,
        work: Work,
        rank: int,
        workers: int,
        train_state: TrainState,
        skipped: dict[int, str],
        sharing: dist.ProcessGroup | None = None,
    ) -> None:
        self.work, self.rank, self.workers, self.train_state = work, rank, workers, train_state
        self.skipped, self.sharing = skipped, sharing
        size = work.run.deepspeed.sequence_parallel
        self.group, self.groups = rank // size, workers // size  # a group reads the same samples
        self.flops = StepFlops(work.task)
        self.telemetry = self._open_log() if rank == 0 else None
        self.validation = Validation(work, rank, train_state, self.telemetry)

    def _open_log(self) -> telemetry.Telemetry:
        output, tracked = self.work.output, self.work.tracked
        services = trackers(self.work.run.tracking, tracked) if tracked is not None else []
        sinks = [Lines(output), TensorBoard(output), Prometheus(output), *services]
        return telemetry.Telemetry(self.train_state.records, sinks)

    def all_stages(self, checkpoint: str | None) -> None:
        """Train what is left of all stages, from `checkpoint` where there is one."""
        finished = False
        try:
            self._stages(checkpoint)
            finished = True
        finally:
            self.validation.close()
            if self.telemetry is not None:
                self.telemetry.close(finished)

    def _stages(self, checkpoint: str | None) -> None:
        state: State | None = None
        for number in range(self.train_state.stage, len(self.work.stages)):
            if number > self.train_state.stage:
                at = self.train_state
                at.stage, at.stage_step, at.losses = number, 0, []
            state = self._whole_stage(number, state, checkpoint)
            checkpoint = None

    def _whole_stage(self, number: int, inherited: State | None, checkpoint: str | None) -> State:
        """Train what is left of a stage, and return its weights; its engine is gone afterwards."""
        stage = self.work.stages[number]
        engine = self.engine(number, inherited, checkpoint)
        try:
            if checkpoint is not None:
                self.validation.again(engine, checkpoint)
            self._steps(engine, stage)
            state = engine.full_state()
            if number == len(self.work.stages) - 1:
                self._finish(engine, state)
            return state
        finally:
            engine.close()

    def engine(
        self, number: int, inherited: State | None = None, checkpoint: str | None = None
    ) -> Engine:
        """Return the engine of a stage, restored from `checkpoint` where there is one."""
        engines.collect()  # that of the stage, or of the attempt, before
        resumes = checkpoint is not None
        model = engines.stage_model(self.work, number, inherited, resumes, self.sharing)
        engine = engines.start(self.work, self.work.stages[number], model, self.workers)
        if checkpoint is not None:
            checkpoints.restore(engine, checkpoint, self.rank)
        return engine

    def _steps(self, engine: Engine, stage: StageConfig) -> None:
        work, train_state, run = self.work, self.train_state, self.work.run
        seed = derive(work.seed, "stage", stage.name)
        loader = Loader(work.data, TRAIN, stage.data, stage.steps, stage.batch_size, seed)
        self.validation.begin_stage(stage)
        bar = Progress(stage.steps, stage.name, "steps", done=train_state.stage_step)
        with ThreadPoolExecutor(1) as ahead, bar if self.rank == 0 else contextlib.nullcontext():
            coming = batches.prefetched(
                ahead, loader, range(train_state.stage_step, stage.steps), self.group, self.groups,
                run.prefetch_batches,
            )  # fmt: skip
            engine.module.train()
            window = telemetry.Window()
            for samples in coming:
                window.waited()
                skipped = self.skipped.get(train_state.step)
                if skipped is None:
                    flops = self.flops.count(engine, stage, samples)
                    loss, metrics, units = self._step(engine, stage, samples)
                    window.stepped(loss, metrics, units, flops)
                    self._check(loss, stage.name)
                else:
                    self._log_skipped(stage, skipped)
                train_state.stage_step += 1
                train_state.step += 1
                last = train_state.stage_step == stage.steps
                if (last or train_state.stage_step % run.log_every_steps == 0) and window.steps:
                    self._log(engine, stage, window.close(self.workers, self.groups))
                if self.rank == 0:
                    bar.advance(note=f"loss {window.last_loss:.4f}" if window.last_loss else "")
                self.validation.take()
                if last or train_state.stage_step % run.validate_every_steps == 0:
                    self.validation.due(engine)
                if last or train_state.stage_step % run.checkpoint_every_steps == 0:
                    self._checkpoint(engine)
                window.restart_clock()

    def _step(
        self, engine: Engine, stage: StageConfig, samples: list[Sample]
    ) -> tuple[float, dict[str, float], int]:
        # All randomness of a step comes from its number, so there is no generator state to save.
        torch.manual_seed(derive(self.work.seed, "step", self.train_state.step, self.group))
        micro = stage.micro_batch_size or len(samples)
        rate = stage.learning_rate_at(self.train_state.stage_step)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate * group["multiple"]
        total, sums, units = 0.0, {}, 0
        parts = range(0, len(samples), micro)
        for start in parts:
            part = samples[start : start + micro]
            made = self.work.task.loss(cast(nn.Module, engine.deepspeed), part, stage)
            engine.deepspeed.backward(made.loss)
            engine.deepspeed.step()
            total += made.loss.item() / len(parts)
            for key, value in made.metrics.items():
                sums[key] = sums.get(key, 0.0) + value.item() / len(parts)
            units += made.units
        if engine.ema is not None:
            engine.ema.update()
        return total, sums, units

    def _check(self, loss: float, stage: str) -> None:
        """Raise BadLoss on all ranks together, before a checkpoint keeps what the step has done."""
        mean = mean_over_ranks([loss])[0]
        try:
            bad_loss.check(mean, stage, self.train_state, self.work.run.bad_loss)
        except BadLoss:
            if self.telemetry is not None:
                self.telemetry.flush()
            raise

    def _log_skipped(self, stage: StageConfig, reason: str) -> None:
        if self.telemetry is not None:
            at = {"step": self.train_state.step + 1, "stage": stage.name}
            self.telemetry.write({**at, "split": "skipped", "reason": reason})

    def _log(self, engine: Engine, stage: StageConfig, figures: telemetry.Figures) -> None:
        self.train_state.seconds += figures.seconds
        if self.telemetry is None:
            return
        norm = engine.deepspeed.get_global_grad_norm()  # before clipping; None where ZeRO is off
        self.telemetry.write(
            {
                "step": self.train_state.step,
                "stage": stage.name,
                "split": TRAIN,
                "loss": figures.loss,
                **figures.metrics,
                "learning_rate": stage.learning_rate_at(self.train_state.stage_step - 1),
                **({} if norm is None else {"grad_norm": float(norm)}),
                f"{self.work.task.unit}_per_second": round(figures.units / figures.seconds, 1),
                "data_wait": round(figures.waited / figures.seconds, 4),
                **telemetry.speed(figures, self.workers, self.work.run.peak_tflops),
                **telemetry.memory(),
                "seconds": round(self.train_state.seconds, 2),
            }
        )

    def _checkpoint(self, engine: Engine) -> None:
        self.validation.take(wait=self.train_state.step == self.work.steps)
        if self.telemetry is not None:
            self.train_state.records = self.telemetry.flush()
        folder = tempfile.mkdtemp(prefix="longtake-")
        self.validation.save(folder)
        checkpoints.save(engine, self.train_state, folder, self.rank)
        ray.train.report(
            self.validation.report(),
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def _finish(self, engine: Engine, state: State) -> None:
        figures = {
            "steps": self.train_state.step,
            "skipped_steps": len(self.skipped),
            "training_seconds": round(self.train_state.seconds, 1),
        }
        finish(self.work, engine, state, self.validation, figures)
