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
from ray_jobs.training.work import Work

State = dict[str, torch.Tensor]
"""A model's state dict, full and on the CPU."""


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

    def full_state(self) -> State:
        """Return the full weights (every rank calls this, and gets all of them)."""
        return zero.full_state(self.deepspeed)


def seeded_model(work: Work) -> torch.nn.Module:
    """Return a fresh model, the same on every rank and in every attempt."""
    torch.manual_seed(derive(work.seed, "weights"))
    return work.task.build()


def stage_model(
    work: Work,
    stage: StageConfig,
    inherited: State | None,
    resumes: bool,
    sharing: dist.ProcessGroup | None,
) -> torch.nn.Module:
    """Return the model of a stage with its weights, ready for an engine.

    Args:
        work: of the run.
        stage: decides what trains, and what begins fresh.
        inherited: weights of the stage before; None in the first.
        resumes: a checkpoint will fill the model.
        sharing: the ranks that share sequences with this one.
    """
    run, model = work.run, seeded_model(work)
    if inherited is not None:
        kept = {k: v for k, v in inherited.items() if not matches(k, stage.fresh)}
        model.load_state_dict({**model.state_dict(), **kept})
    elif run.initial is not None and not resumes:
        work.task.load(model, run.initial)
    if run.recompute_activations:
        recompute_activations(model)
    if run.compile_blocks:
        compile_blocks(model)
    if sharing is not None:
        for part in sequence_sharing(model):
            part.share_sequences(sharing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(matches(name, stage.trainable))
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
    return Engine(engine, optimizer, ema)


def collect() -> None:
    """Free engines that nothing refers to any more; DeepSpeed leaves them in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
