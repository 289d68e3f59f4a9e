"""The stage loop that every Ray Train worker runs."""

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import deepspeed
import ray.train
import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from data_prep.loader import Loader
from data_prep.sample import Sample
from data_prep.sampling import TRAIN
from infra import storage
from infra.log import logger
from infra.progress import Progress
from infra.seeding import derive
from ray_jobs.training import bad_loss, batches, checkpoint_index, checkpoints, telemetry, zero
from ray_jobs.training.bad_loss import BadLoss, Skipped
from ray_jobs.training.capabilities import compile_blocks, recompute_activations, sequence_sharing
from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.config import RunConfig, StageConfig, deepspeed_dict
from ray_jobs.training.ema import Ema
from ray_jobs.training.optimizer import adamw, matches
from ray_jobs.training.ranks import any_rank, mean_over_ranks, sequence_group
from ray_jobs.training.sinks import SAMPLES, Lines, Prometheus, TensorBoard
from ray_jobs.training.task import Task
from ray_jobs.training.tracked_runs import Tracked
from ray_jobs.training.trackers import trackers
from ray_jobs.training.validation import Validation

LAST_FOLDER = "last"


@dataclass(frozen=True)
class Work:
    """Everything a worker needs; sent to it by Ray Train."""

    task: Task
    stages: tuple[StageConfig, ...]
    run: RunConfig
    data: str
    """URI of the shards."""
    output: str
    """URI of the job's artifact."""
    seed: int
    threads: int
    tracked: Tracked | None = None
    """None: `run.tracking` names no service."""


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
                _Run(work, rank, workers, train_state, skipped.steps, sharing).all_stages(folder)
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


@dataclass(frozen=True)
class Engine:
    """What trains in one stage."""

    deepspeed: deepspeed.DeepSpeedEngine
    optimizer: torch.optim.Optimizer
    ema: Ema | None

    @property
    def module(self) -> torch.nn.Module:
        """The model itself."""
        return cast(torch.nn.Module, self.deepspeed.module)


class _Run:
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
        self.skipped = skipped
        self.sharing = sharing  # with whom this rank shares sequences
        size = work.run.deepspeed.sequence_parallel
        self.group, self.groups = rank // size, workers // size  # a group reads the same samples
        self.flops: dict[tuple[int, ...], float] = {}  # of one sample, by its shape
        self.telemetry = self._open_log() if rank == 0 else None
        self.validation = Validation(work, rank, train_state, self.telemetry)

    def _open_log(self) -> telemetry.Telemetry:
        output, tracked = self.work.output, self.work.tracked
        services = trackers(self.work.run.tracking, tracked) if tracked is not None else []
        sinks = [Lines(output), TensorBoard(output), Prometheus(output), *services]
        return telemetry.Telemetry(self.train_state.records, sinks)

    def all_stages(self, checkpoint: str | None) -> None:
        finished = False
        try:
            self._stages(checkpoint)
            finished = True
        finally:
            self.validation.close()
            if self.telemetry is not None:
                self.telemetry.close(finished)

    def _stages(self, checkpoint: str | None) -> None:
        state: dict[str, torch.Tensor] | None = None
        for number, stage in enumerate(self.work.stages):
            if number < self.train_state.stage:
                continue
            if number > self.train_state.stage:
                self.train_state.stage, self.train_state.stage_step, self.train_state.losses = (
                    number,
                    0,
                    [],
                )
            engine = self._engine(self._model(stage, state, checkpoint), stage)
            try:
                if checkpoint is not None:
                    checkpoints.restore(engine.deepspeed, engine.ema, checkpoint, self.rank)
                    self.validation.again(engine, checkpoint)
                    checkpoint = None
                self._stage(engine, stage)
                state = zero.full_state(engine.deepspeed)
                if number == len(self.work.stages) - 1:
                    self._finish(engine, state)
            finally:
                engine.deepspeed.destroy()

    def _model(
        self, stage: StageConfig, state: dict[str, torch.Tensor] | None, checkpoint: str | None
    ) -> torch.nn.Module:
        """Build a model for a stage, with the weights it inherits."""
        task, run = self.work.task, self.work.run
        torch.manual_seed(derive(self.work.seed, "weights"))
        model = task.build()
        if state is not None:
            inherited = {k: v for k, v in state.items() if not matches(k, stage.fresh)}
            model.load_state_dict({**model.state_dict(), **inherited})
        elif run.initial is not None and checkpoint is None:
            task.load(model, run.initial)
        if run.recompute_activations:
            recompute_activations(model)
        if run.compile_blocks:
            compile_blocks(model)
        if self.sharing is not None:
            for part in sequence_sharing(model):
                part.share_sequences(self.sharing)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(matches(name, stage.trainable))
        return model

    def _engine(self, model: torch.nn.Module, stage: StageConfig) -> Engine:
        run = self.work.run
        optimizer = adamw(model, run.optimizer, stage.learning_rate)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=deepspeed_dict(run, stage, self.workers),
            dist_init_required=False,
        )
        ema = None if run.ema_decay is None else Ema(zero.masters(engine), run.ema_decay)
        if self.workers == 1 and not run.deepspeed.zero_stage:
            engine.enable_backward_allreduce = False  # else it copies all gradients twice
        zero.own_writes(model)
        return Engine(engine, optimizer, ema)

    def _stage(self, engine: Engine, stage: StageConfig) -> None:
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
                    flops = self._count(engine, stage, samples)
                    loss, metrics, units = self._step(engine, stage, samples)
                    window.stepped(loss, metrics, units, flops)
                    self._check(loss, stage.name)
                elif self.telemetry is not None:
                    self.telemetry.write(
                        {"step": train_state.step + 1, "stage": stage.name, "split": "skipped",
                         "reason": skipped}
                    )  # fmt: skip
                train_state.stage_step += 1
                train_state.step += 1
                last = train_state.stage_step == stage.steps
                if (last or train_state.stage_step % run.log_every_steps == 0) and window.steps:
                    self._log(engine.deepspeed, stage, window.close(self.workers, self.groups))
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
            loss, metrics, read = self.work.task.loss(engine.deepspeed, part, stage)
            engine.deepspeed.backward(loss)
            engine.deepspeed.step()
            total += loss.item() / len(parts)
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + value.item() / len(parts)
            units += read
        if engine.ema is not None:
            engine.ema.update()
        return total, sums, units

    def _count(self, engine: Engine, stage: StageConfig, samples: list[Sample]) -> float:
        """Return the operations of a step: those of a forward pass, counted once, three times."""
        first = samples[0]
        shape = first.data.shape
        if shape not in self.flops:
            engine.module.eval()  # so that the pass leaves no trace
            eager = torch.compiler.set_stance("force_eager")  # compiled operations are not counted
            with torch.no_grad(), eager, FlopCounterMode(display=False) as counter:
                self.work.task.loss(engine.deepspeed, samples[:1], stage)
            engine.module.train()
            self.flops[shape] = 3.0 * counter.get_total_flops()
        return self.flops[shape] * len(samples)

    def _check(self, loss: float, stage: str) -> None:
        """Raise BadLoss on all ranks together, before a checkpoint keeps what the step has done."""
        try:
            bad_loss.check(
                mean_over_ranks([loss])[0], stage, self.train_state, self.work.run.bad_loss
            )
        except BadLoss:
            if self.telemetry is not None:
                self.telemetry.flush()
            raise

    def _log(
        self, engine: deepspeed.DeepSpeedEngine, stage: StageConfig, figures: telemetry.Figures
    ) -> None:
        self.train_state.seconds += figures.seconds
        if self.telemetry is None:
            return
        self.telemetry.write(
            {
                "step": self.train_state.step,
                "stage": stage.name,
                "split": TRAIN,
                "loss": figures.loss,
                **figures.metrics,
                "learning_rate": stage.learning_rate_at(self.train_state.stage_step - 1),
                **_grad_norm(engine),
                f"{self.work.task.unit}_per_second": round(figures.units / figures.seconds, 1),
                "data_wait": round(figures.waited / figures.seconds, 4),
                **telemetry.speed(figures, self.workers, self.work.run.peak_tflops),
                **telemetry.memory(),
                "seconds": round(self.train_state.seconds, 2),
            }
        )

    def _checkpoint(self, engine: Engine) -> None:
        last = self.train_state.step == sum(stage.steps for stage in self.work.stages)
        self.validation.take(wait=last)
        if self.telemetry is not None:
            self.train_state.records = self.telemetry.flush()
        folder = tempfile.mkdtemp(prefix="longtake-")
        self.validation.save(folder)
        checkpoints.save(engine.deepspeed, engine.ema, self.train_state, folder, self.rank)
        ray.train.report(
            self.validation.report(),
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def _finish(self, engine: Engine, state: dict[str, torch.Tensor]) -> None:
        work, last = self.work, state
        if engine.ema is not None:  # the average is the model, and is judged
            with engine.ema.in_place():
                state = zero.full_state(engine.deepspeed)
            zero.fill(engine.deepspeed, state)
        judged = self.validation.final(engine, state)
        if judged is None:
            return
        for name, png in judged.pictures.items():
            storage.write_bytes(storage.join(work.output, SAMPLES, name), png)
        self._export(state, work.output)
        if state is not last:
            self._export(last, storage.join(work.output, LAST_FOLDER))
        parameters = dict(engine.module.named_parameters())
        summary = {
            "parameters": sum(state[name].numel() for name in parameters),
            "steps": self.train_state.step,
            "skipped_steps": len(self.skipped),
            "training_seconds": round(self.train_state.seconds, 1),
            "validation": judged.figures,
        }
        storage.write_json(storage.join(work.output, "training.json"), summary)

    def _export(self, state: dict[str, torch.Tensor], uri: str) -> None:
        with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
            self.work.task.export(state, folder)
            storage.upload_dir(Path(folder), uri)


def _grad_norm(engine: deepspeed.DeepSpeedEngine) -> dict[str, float]:
    """Return the norm before clipping; DeepSpeed keeps none where ZeRO is off."""
    norm = engine.get_global_grad_norm()
    return {} if norm is None else {"grad_norm": float(norm)}
