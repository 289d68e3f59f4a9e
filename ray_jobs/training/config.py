"""The settings of a training run, and DeepSpeed's own dict made from them."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from data_prep.loader import Mix
from infra.config import Section
from infra.errors import UserError


class StageConfig(Section):
    """One stage: what is drawn, how it is stepped. Each stage starts a fresh optimizer."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    """Samples in a global batch, over all workers and accumulation."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Samples a worker holds at once; None: its whole share, so no accumulation."""
    data: Annotated[tuple[Mix, ...], Field(min_length=1)]
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where the cosine ends, as a share of `learning_rate`."""

    def learning_rate_at(self, step: int) -> float:
        """Return the rate of `step` (from 0): linear warm-up, then a cosine to the last step."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        span = max(self.steps - self.warmup_steps, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / span))
        floor = self.final_learning_rate_ratio
        return self.learning_rate * (floor + (1 - floor) * cosine)


class DeepSpeedConfig(Section):
    """What of DeepSpeed a run uses."""

    zero_stage: Literal[0, 1, 2] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_clipping: Annotated[float, Field(gt=0)] = 1.0


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate_multiples: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Parameter name or pattern (``*.codebook``) to the multiple of the stage's rate it gets."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    eps: Annotated[float, Field(gt=0)] = 1e-8


class RunConfig(Section):
    """How a run is watched, kept and saved."""

    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 1000
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    validate_every_steps: Annotated[int, Field(ge=1)] = 1000
    validation_windows: Annotated[int, Field(ge=1)] = 64
    """Held-out windows to judge on, of each length that the stage trains on."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often lost workers are started again from the last checkpoint."""
    threads_per_worker: Annotated[int, Field(ge=1)] | None = None
    """torch threads on CPU; None: the worker's CPUs."""


def check_stages(stages: Sequence[StageConfig], workers: int) -> None:
    """Raise UserError unless stages have names of their own and batches that divide."""
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise UserError(f"stages {', '.join(names)}: each needs a name of its own")
    for stage in stages:
        if stage.batch_size % workers:
            raise UserError(
                f"stage {stage.name}: batch_size {stage.batch_size} does not divide over "
                f"{workers} workers"
            )
        share = stage.batch_size // workers
        if stage.micro_batch_size and share % stage.micro_batch_size:
            raise UserError(
                f"stage {stage.name}: {share} samples a worker do not divide into "
                f"micro-batches of {stage.micro_batch_size}"
            )


def deepspeed_dict(run: RunConfig, stage: StageConfig, workers: int) -> dict[str, Any]:
    """Return DeepSpeed's config of one stage; the only place that knows its key names."""
    share = stage.batch_size // workers
    micro = stage.micro_batch_size or share
    return {
        "train_batch_size": stage.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_clipping": run.deepspeed.gradient_clipping,
        "zero_optimization": {"stage": run.deepspeed.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": run.deepspeed.precision == "bf16"},
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
