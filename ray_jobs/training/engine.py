"""The model and the DeepSpeed engine of one training stage."""

import gc
from dataclasses import dataclass
from typing import cast

import deepspeed
import torch
import torch.distributed as dist

from infra.seeding import derive
from ray_jobs.training import zero
from ray_jobs.training.capabilities import compile_blocks, recompute_activations, sequence_sharing
from ray_jobs.training.config import StageConfig, deepspeed_dict
from ray_jobs.training.ema import Ema
from ray_jobs.training.optimizer import adamw, matches
from ray_jobs.training.task import State
from ray_jobs.training.work import Work


@dataclass(frozen=True)
class Engine:
    """What trains in one stage."""

    deepspeed: deepspeed.DeepSpeedEngine
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    frozen: tuple[str, ...]
    """Names or patterns of what never trains; see :class:`ray_jobs.training.task.Task`."""

    @property
    def module(self) -> torch.nn.Module:
        """The model itself."""
        return cast(torch.nn.Module, self.deepspeed.module)

    def full_state(self) -> State:
        """Return the full weights without the frozen ones (every rank calls this, and gets all)."""
        return zero.full_state(self.deepspeed, self.frozen)

    def close(self) -> None:
        """End the engine; what refers to it no more is freed by :func:`collect`."""
        self.deepspeed.destroy()
        zero.forget_models()


def fresh_model(work: Work, begins: bool = False) -> torch.nn.Module:
    """Return a model with its frozen weights, the same on every rank and in every attempt.

    Args:
        work: of the run.
        begins: the run begins with it, so that initial weights count that are to be trained too.
    """
    torch.manual_seed(derive(work.seed, "weights"))
    model = work.task.build()
    if work.initial is not None and (begins or work.initial.how == "base"):
        work.task.load(model, work.initial)
    return model


def fill(model: torch.nn.Module, state: State) -> None:
    """Load weights into a model; what `state` lacks stays as it is."""
    model.load_state_dict({**model.state_dict(), **state})


def stage_model(
    work: Work,
    number: int,
    inherited: State | None,
    resumes: bool,
    sharing: dist.ProcessGroup | None,
) -> torch.nn.Module:
    """Return the model of a stage with its weights, ready for an engine.

    Args:
        work: of the run.
        number: of the stage, from 0.
        inherited: weights of the stage before; None in the first.
        resumes: a checkpoint will fill the model.
        sharing: the ranks that share sequences with this one.
    """
    run, stage = work.run, work.stages[number]
    model = fresh_model(work, begins=inherited is None and not resumes)
    if inherited is not None:
        state = work.task.inherit(inherited, work.stages[:number], stage, work.initial)
        fill(model, {k: v for k, v in state.items() if not matches(k, stage.fresh)})
    if run.recompute_activations:
        recompute_activations(model)
    if run.compile_blocks:
        compile_blocks(model)
    if sharing is not None:
        for part in sequence_sharing(model):
            part.share_sequences(sharing)
    for name, parameter in model.named_parameters():
        trains = matches(name, stage.trainable) and not matches(name, work.task.frozen)
        parameter.requires_grad_(trains)
    return model


def start(work: Work, stage: StageConfig, model: torch.nn.Module, workers: int) -> Engine:
    """Return an engine that trains `model` with a fresh optimizer."""
    run = work.run
    optimizer = adamw(model, run.optimizer, stage.learning_rate)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_dict(run, stage, workers),
        dist_init_required=False,
    )
    ema = None if run.ema_decay is None else Ema(zero.masters(engine), run.ema_decay)
    if workers == 1 and not run.deepspeed.zero_stage:
        engine.enable_backward_allreduce = False  # else it copies all gradients twice
    zero.own_writes(model)
    return Engine(engine, optimizer, ema, work.task.frozen)


def collect() -> None:
    """Free closed engines that nothing refers to any more; DeepSpeed leaves them in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
