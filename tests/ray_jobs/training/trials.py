"""A few steps of an engine without Ray, on ranks that a test starts."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save, save_file
from torch.multiprocessing.spawn import spawn

from data_prep.loader import Loader, Mix
from ray_jobs.training import batches, checkpoints, zero
from ray_jobs.training.async_validation import judge
from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.config import AsyncValidationConfig, DeepSpeedConfig, RunConfig
from ray_jobs.training.engine import Engine
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.loop import Run
from ray_jobs.training.ranks import sequence_group
from ray_jobs.training.work import Work
from tests.ray_jobs.training import runs

STEPS, SAVED_AT = 4, 2


class Trial:
    """Some steps of one kind of model under one way of sharing it out.

    Args:
        kind: of ``runs.KINDS`` by name, or another.
        deepspeed: fields of ``DeepSpeedConfig``.
        data: from ``runs.write_data``.
        initial: weights to start from.
        run: other fields of ``RunConfig``.
    """

    def __init__(
        self,
        kind: str | runs.Kind,
        deepspeed: dict[str, Any],
        data: dict[str, str],
        initial: InitialConfig | None = None,
        **run: Any,
    ) -> None:
        made = runs.KINDS[kind] if isinstance(kind, str) else kind
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.stage = made.stage(
            name="a", steps=STEPS, batch_size=4, data=(Mix(frames=5),), learning_rate=1e-3,
            micro_batch_size=1 if made.micro_batch_size else None, trainable=made.trainable,
        )  # fmt: skip
        config = RunConfig(ema_decay=0.5, deepspeed=DeepSpeedConfig(**deepspeed), **run)
        self.sharing = sequence_group(config.deepspeed.sequence_parallel)
        self.work = Work(made.task(), (self.stage,), config, data[made.data], "", initial, 0, 1)
        self.loader = Loader(data[made.data], "train", self.stage.data, STEPS, 4, 0)

    def begin(self, checkpoint: str | None = None) -> tuple[Run, Engine]:
        train_state = (
            checkpoints.read_train_state(checkpoint)
            if checkpoint
            else TrainState(workers=self.ranks)
        )
        run = Run(self.work, self.rank, self.ranks, train_state, {}, self.sharing)
        run.telemetry = None
        engine = run.engine(0, None, checkpoint)
        engine.module.train()
        return run, engine

    def steps(self, run: Run, engine: Engine, until: int) -> list[float]:
        losses = []
        while run.train_state.step < until:
            samples = batches.batch(self.loader, run.train_state.step, run.group, run.groups)
            losses.append(run._step(engine, self.stage, samples)[0])
            run.train_state.step += 1
            run.train_state.stage_step += 1
        return losses


def states(engine: Engine) -> dict[str, torch.Tensor]:
    assert engine.ema is not None
    with engine.ema.in_place():
        average = engine.full_state()
    whole = engine.full_state()
    return {**whole, **{f"ema.{name}": tensor for name, tensor in average.items()}}


def straight(trial: Trial, saved: str) -> None:
    """Train; the first rank writes what comes of it: ``-straight`` and ``.json`` (losses)."""
    run, engine = trial.begin()
    losses = trial.steps(run, engine, STEPS)
    state = states(engine)
    engine.close()
    if trial.rank == 0:
        _write(saved, losses, state)


def straight_and_resumed(trial: Trial, saved: str) -> None:
    """Train, and train again from the middle; the first rank writes what comes of both.

    Args:
        trial: what to train.
        saved: where the checkpoint goes, and beside it ``-straight``, ``-resumed`` (weights and
            their average), ``.json`` and ``-again.json`` (losses), and ``-judged.json`` (what
            validation gave in the engine, and asynchronously, of the last weights and the average).
    """
    run, engine = trial.begin()
    losses = trial.steps(run, engine, SAVED_AT)
    checkpoints.save(engine, run.train_state, f"{saved}-{trial.rank}", trial.rank)
    dist.barrier()
    if trial.rank == 0:  # as Ray Train does with what each rank reports
        for each in range(trial.ranks):
            shutil.copytree(f"{saved}-{each}", saved, dirs_exist_ok=True)
    dist.barrier()
    losses += trial.steps(run, engine, STEPS)
    state = states(engine)
    held = batches.held_out(trial.work.data, trial.stage, trial.work.run.validation_windows)
    with torch.no_grad(), zero.own_writers_whole(engine.module.eval()):
        inline = trial.work.task.validate(engine.module, held, trial.stage)
    weights = save(engine.full_state())
    average = {k.removeprefix("ema."): v for k, v in state.items() if k.startswith("ema.")}
    zero.fill(engine.deepspeed, average)
    with torch.no_grad(), zero.own_writers_whole(engine.module):
        inline_average = trial.work.task.validate(engine.module, held, trial.stage)
    engine.close()
    run, engine = trial.begin(saved)
    again = trial.steps(run, engine, STEPS)
    resumed = states(engine)
    engine.close()
    if trial.rank == 0:
        _write(saved, losses, state)
        save_file({k: v.contiguous() for k, v in resumed.items()}, saved + "-resumed")
        Path(saved + "-again.json").write_text(json.dumps(again))
        asks = trial.work.run.model_copy(update={"validation_async": AsyncValidationConfig()})
        work = replace(trial.work, run=asks)
        asynchronous = judge(work, trial.stage, weights)
        async_average = judge(work, trial.stage, save(average))
        judged = {
            "last": [inline.figures, asynchronous.figures],
            "average": [inline_average.figures, async_average.figures],
        }
        Path(saved + "-judged.json").write_text(json.dumps(judged))


def _write(saved: str, losses: list[float], state: dict[str, torch.Tensor]) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, saved + "-straight")
    Path(saved + ".json").write_text(json.dumps(losses))


def start(ranks: int, work: Callable[..., None], *args: Any, backend: str = "gloo") -> None:
    """Run ``work(*args)`` on ranks of gloo or nccl, one thread each, and wait."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_rank, (ranks, port, work, args, backend), nprocs=ranks)


def _rank(
    rank: int, ranks: int, port: int, work: Callable[..., None], args: tuple[Any, ...], backend: str
) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
    )  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group(backend)
    work(*args)
    dist.destroy_process_group()
