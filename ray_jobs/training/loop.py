"""The stage loop that every Ray Train worker runs."""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from data_prep.loader import Loader, Sample
from data_prep.sampling import TRAIN, VALIDATION
from infra import storage
from infra.errors import UserError
from infra.progress import Progress, say
from infra.seeding import derive
from ray_jobs.training import checkpoints, telemetry
from ray_jobs.training.checkpoints import Place
from ray_jobs.training.config import RunConfig, StageConfig, deepspeed_dict
from ray_jobs.training.optimizer import adamw
from ray_jobs.training.task import Task

STOPPED = "stopped.json"


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


class Stopped(Exception):
    """The run must not go on; every rank raises it at the same step."""


def train(settings: dict[str, Any]) -> None:
    """Train through all stages, from the last whole checkpoint (the Ray Train loop)."""
    work: Work = settings["work"]
    torch.set_num_threads(work.threads)
    rank = ray.train.get_context().get_world_rank()
    workers = ray.train.get_context().get_world_size()
    with _last_whole(rank, workers) as folder:
        place = checkpoints.read_place(folder) if folder else Place()
        place.workers = workers
        run = _Run(work, rank, workers, place)
        try:
            run.all_stages(folder)
        except Stopped as error:
            if rank == 0:
                stopped = {"step": place.step, "reason": str(error)}
                storage.write_json(storage.join(work.output, STOPPED), stopped)


@contextlib.contextmanager
def _last_whole(rank: int, workers: int) -> Iterator[str | None]:
    """Yield a folder with the newest checkpoint that all ranks find whole; None without one."""
    latest = ray.train.get_checkpoint()
    earlier = (
        [each.checkpoint for each in ray.train.get_all_reported_checkpoints()] if latest else []
    )
    for checkpoint in [latest, *(each for each in reversed(earlier) if each != latest)]:
        if checkpoint is None:
            break
        with checkpoint.as_directory() as folder:
            found = checkpoints.problem(folder, rank, workers)
            if found is not None:
                say(f"{checkpoint.path}: damaged ({found}); going back to the one before")
            if not _any_rank(found is not None):
                yield folder
                return
    yield None


def _any_rank(flag: bool) -> bool:
    """Return whether `flag` is set on any rank; every rank calls this."""
    flags = torch.tensor(int(flag), device=ray.train.torch.get_device())
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


class _Run:
    def __init__(self, work: Work, rank: int, workers: int, place: Place) -> None:
        self.work, self.rank, self.workers, self.place = work, rank, workers, place
        self.telemetry = telemetry.Telemetry(work.output, place.records) if rank == 0 else None

    def all_stages(self, checkpoint: str | None) -> None:
        torch.manual_seed(derive(self.work.seed, "weights"))
        model = self.work.task.build()
        for number, stage in enumerate(self.work.stages):
            if number < self.place.stage:
                continue
            if number > self.place.stage:
                self.place.stage, self.place.stage_step = number, 0
            engine, optimizer = self._engine(model, stage)
            if checkpoint is not None:
                checkpoints.restore(engine, checkpoint)
                checkpoint = None
            self._stage(model, engine, optimizer, stage)
            engine.destroy()
        if self.rank == 0:
            self._finish(model)

    def _engine(
        self, model: torch.nn.Module, stage: StageConfig
    ) -> tuple[deepspeed.DeepSpeedEngine, torch.optim.Optimizer]:
        optimizer = adamw(model, self.work.run.optimizer, stage.learning_rate)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=deepspeed_dict(self.work.run, stage, self.workers),
            dist_init_required=False,
        )
        return engine, optimizer

    def _stage(
        self,
        model: torch.nn.Module,
        engine: deepspeed.DeepSpeedEngine,
        optimizer: torch.optim.Optimizer,
        stage: StageConfig,
    ) -> None:
        work, place, run = self.work, self.place, self.work.run
        seed = derive(work.seed, "stage", stage.name)
        loader = Loader(work.data, TRAIN, stage.data, stage.steps, stage.batch_size, seed)
        judged = held_out(work.data, stage, run.validation_windows)
        bar = Progress(stage.steps, stage.name, "steps", done=place.stage_step)
        with ThreadPoolExecutor(1) as ahead, bar if self.rank == 0 else contextlib.nullcontext():
            batches = _prefetched(
                ahead, loader, place.stage_step, stage.steps, self.rank, self.workers
            )
            model.train()
            window = telemetry.Window()
            for samples in batches:
                window.waited()
                loss, metrics, units = self._step(engine, optimizer, stage, samples)
                place.stage_step += 1
                place.step += 1
                window.stepped(loss, metrics, units)
                self._check(loss, stage)
                last = place.stage_step == stage.steps
                if last or place.stage_step % run.log_every_steps == 0:
                    self._log(engine, stage, window.close(self.workers))
                if self.rank == 0:
                    bar.advance(note=f"loss {window.last_loss:.4f}" if window.last_loss else "")
                if last or place.stage_step % run.validate_every_steps == 0:
                    self._validate(model, stage, judged)
                if last or place.stage_step % run.checkpoint_every_steps == 0:
                    self._checkpoint(engine)
                window.restart_clock()

    def _step(
        self,
        engine: deepspeed.DeepSpeedEngine,
        optimizer: torch.optim.Optimizer,
        stage: StageConfig,
        samples: list[Sample],
    ) -> tuple[float, dict[str, float], int]:
        # All randomness of a step comes from its number, so there is no generator state to save.
        torch.manual_seed(derive(self.work.seed, "step", self.place.step, self.rank))
        micro = stage.micro_batch_size or len(samples)
        rate = stage.learning_rate_at(self.place.stage_step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["multiple"]
        total, sums, units = 0.0, {}, 0
        parts = range(0, len(samples), micro)
        for start in parts:
            part = samples[start : start + micro]
            loss, metrics, read = self.work.task.loss(engine, part, stage)
            engine.backward(loss)
            engine.step()
            total += loss.item() / len(parts)
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + value.item() / len(parts)
            units += read
        return total, sums, units

    def _check(self, loss: float, stage: StageConfig) -> None:
        """Stop all ranks together, before a checkpoint keeps what this step has done."""
        if not _any_rank(not math.isfinite(loss)):
            return
        if self.telemetry is not None:
            self.telemetry.flush()
        raise Stopped(f"the loss of step {self.place.step} (stage {stage.name}) is not finite")

    def _log(
        self, engine: deepspeed.DeepSpeedEngine, stage: StageConfig, figures: telemetry.Figures
    ) -> None:
        self.place.seconds += figures.seconds
        if self.telemetry is None:
            return
        self.telemetry.write(
            {
                "step": self.place.step,
                "stage": stage.name,
                "split": TRAIN,
                "loss": figures.loss,
                **figures.metrics,
                "learning_rate": stage.learning_rate_at(self.place.stage_step - 1),
                **_grad_norm(engine),
                f"{self.work.task.unit}_per_second": round(figures.units / figures.seconds, 1),
                "data_wait": round(figures.waited / figures.seconds, 4),
                "seconds": round(self.place.seconds, 2),
            }
        )

    def _validate(self, model: torch.nn.Module, stage: StageConfig, samples: list[Sample]) -> None:
        if self.telemetry is None:
            return
        model.eval()
        with torch.no_grad():
            figures, pictures = self.work.task.validate(model, samples)
        model.train()
        place = {"step": self.place.step, "stage": stage.name, "split": VALIDATION}
        self.telemetry.write({**place, **figures})
        for name, png in pictures.items():
            stem = f"step_{self.place.step:07d}_{name}"
            storage.write_bytes(storage.join(self.work.output, "samples", stem), png)

    def _checkpoint(self, engine: deepspeed.DeepSpeedEngine) -> None:
        if self.telemetry is not None:
            self.place.records = self.telemetry.flush()
        with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
            checkpoints.save(engine, self.place, folder, self.rank)
            ray.train.report(
                {"step": self.place.step}, checkpoint=ray.train.Checkpoint.from_directory(folder)
            )

    def _finish(self, model: torch.nn.Module) -> None:
        judged = held_out(self.work.data, self.work.stages[-1], self.work.run.validation_windows)
        model.eval()
        with torch.no_grad():
            figures, pictures = self.work.task.validate(model, judged)
        for name, png in pictures.items():
            storage.write_bytes(storage.join(self.work.output, "samples", name), png)
        with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
            self.work.task.export(model, folder)
            storage.upload_dir(Path(folder), self.work.output)
        summary = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": self.place.step,
            "training_seconds": round(self.place.seconds, 1),
            "validation": figures,
        }
        storage.write_json(storage.join(self.work.output, "training.json"), summary)


def _grad_norm(engine: deepspeed.DeepSpeedEngine) -> dict[str, float]:
    """Return the norm before clipping; DeepSpeed keeps none where ZeRO is off."""
    norm = engine.get_global_grad_norm()
    return {} if norm is None else {"grad_norm": float(norm)}


def held_out(uri: str, stage: StageConfig, count: int) -> list[Sample]:
    """Return up to `count` validation samples of each of the stage's lengths, longest first.

    Few clips of a small corpus are long; shorter windows bring in the others.

    Raises:
        UserError: nothing is held out in any of the stage's lengths.
    """
    samples: list[Sample] = []
    for mix in sorted(stage.data, key=lambda mix: -mix.frames):
        with contextlib.suppress(UserError):
            samples += Loader(uri, VALIDATION, [mix], 1, 1, seed=0).first(count)
    if not samples:
        lengths = ", ".join(str(mix.frames) for mix in stage.data)
        raise UserError(
            f"{uri}: no validation clip of {lengths} frames; hold out more (validation_share), "
            "or train on shorter clips"
        )
    return samples


def _prefetched(
    ahead: ThreadPoolExecutor, loader: Loader, first: int, steps: int, rank: int, workers: int
) -> Iterator[list[Sample]]:
    """Yield the batches of steps `first` … `steps`, reading one ahead."""
    coming = ahead.submit(loader.batch, first, rank, workers) if first < steps else None
    for step in range(first, steps):
        assert coming is not None
        batch = coming.result()
        coming = ahead.submit(loader.batch, step + 1, rank, workers) if step + 1 < steps else None
        yield batch
