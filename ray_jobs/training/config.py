"""Training settings, and the DeepSpeed config made from them."""

import math
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from data_prep.loader import Mix
from infra.config import Section, refuse_ignored
from infra.errors import UserError


class StageConfig(Section):
    """One stage: what is drawn, how it is stepped. Each stage starts a fresh optimizer."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    """Samples in a global batch, over all workers and accumulation."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Samples a worker (or the workers that share sequences) holds at once; None: its whole share,
    so no accumulation."""
    data: Annotated[tuple[Mix, ...], Field(min_length=1)]
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where the cosine ends, as a share of `learning_rate`."""
    trainable: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    """Names or patterns of the parameters that are trained; the others stay as they are."""
    fresh: tuple[str, ...] = ()
    """Names or patterns of the parameters that are not inherited from the stage before."""

    def learning_rate_at(self, step: int) -> float:
        """Return the rate of `step` (from 0): linear warm-up, then a cosine to the last step."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        span = max(self.steps - self.warmup_steps, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / span))
        floor = self.final_learning_rate_ratio
        return self.learning_rate * (floor + (1 - floor) * cosine)


class DeepSpeedConfig(Section):
    """DeepSpeed settings."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the model's passes; the optimizer steps fp32 weights in any case. bf16 and fp16 need
    ZeRO 1 or above, fp16 needs GPUs."""
    gradient_clipping: Annotated[float, Field(gt=0)] = 1.0
    offload_optimizer: bool = False
    """Keep the optimizer's state in the host's memory; needs ZeRO 1 or above."""
    offload_parameters: bool = False
    """Keep the weights there too; needs ZeRO 3."""
    sequence_parallel: Annotated[int, Field(ge=1)] = 1
    """Workers that share every sequence, each with a stretch of it (DeepSpeed-Ulysses); a divisor
    of ``resources.workers`` and of the model's heads. The autoregressive model only."""

    @model_validator(mode="after")
    def _what_needs_zero(self) -> Self:
        if self.precision != "fp32" and self.zero_stage < 1:
            raise ValueError(f"precision {self.precision} needs zero_stage 1, 2 or 3; it is 0")
        if self.offload_optimizer and self.zero_stage < 1:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3; it is 0")
        if self.offload_parameters and self.zero_stage < 3:
            raise ValueError(f"offload_parameters needs zero_stage 3; it is {self.zero_stage}")
        return self


class BadLossConfig(Section):
    """What to do about a loss that is NaN, infinite, or a spike.

    To skip means to go back to the last checkpoint and pass over the batch that gave the loss.
    """

    policy: Literal["stop", "skip"] = "stop"
    spike_ratio: Annotated[float, Field(gt=1)] | None = None
    """A loss above so many times the median of the last `spike_window` steps is a spike; None:
    no loss that is finite is bad."""
    spike_window: Annotated[int, Field(ge=2, le=1000)] = 50
    most_skipped: Annotated[int, Field(ge=1)] = 10
    """A run that would skip more steps stops."""

    @model_validator(mode="after")
    def _check_ignored(self) -> Self:
        if self.policy != "skip":
            refuse_ignored(self, f"policy {self.policy}", "most_skipped")
        if self.spike_ratio is None:
            refuse_ignored(self, "spike_ratio null", "spike_window")
        return self


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate_multiples: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Parameter name or pattern (``*.codebook``) to the multiple of the stage's rate it gets."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    eps: Annotated[float, Field(gt=0)] = 1e-8


def _tracking_uri(uri: str) -> str:
    if "://" not in uri and uri != "databricks":
        raise ValueError(
            "allowed are a server (https://…), a database (sqlite:///FILE) or databricks; "
            "MLflow keeps no runs in folders any more"
        )
    if urlsplit(uri).password is not None:
        raise ValueError("no passwords here: MLflow reads MLFLOW_TRACKING_USERNAME, _PASSWORD")
    scheme, _, file = uri.partition(":///")
    return f"sqlite:///{os.path.abspath(file)}" if scheme == "sqlite" else uri


class MlflowConfig(Section):
    """MLflow; what it needs to know of credentials it reads from its environment variables."""

    tracking_uri: Annotated[str, AfterValidator(_tracking_uri)]
    """A server, or ``sqlite:///FILE``, as the first worker reaches it."""
    experiment: Annotated[str, Field(min_length=1)] = "longtake"


class WandbConfig(Section):
    """Weights & Biases; it reads ``WANDB_API_KEY``, ``WANDB_BASE_URL`` and its other variables."""

    project: Annotated[str, Field(min_length=1)] = "longtake"
    mode: Literal["online", "offline"] = "online"
    """offline: into ``wandb/`` of the output, for ``wandb sync``."""


class TrackingConfig(Section):
    """Services that get the log too. Not part of an artifact's fingerprint."""

    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None


class AsyncValidationConfig(Section):
    """Resources of asynchronous validation, in addition to ``resources``."""

    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0


class RunConfig(Section):
    """Settings that all stages of a run share."""

    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Average the weights over the steps, with this share kept by each; the average is then the
    model that comes of the run, and the last step's weights go to ``last/``. It begins anew in each
    stage. Validations on the way are of the weights themselves. None: no average."""
    recompute_activations: bool = False
    """Keep less for the backward pass and compute it again: less memory, about a third slower."""
    compile_blocks: bool = False
    """Compile the model's blocks (``torch.compile``); a shape's first steps take their time.
    ZeRO 0 to 2, and the autoregressive model only."""
    bad_loss: BadLossConfig = BadLossConfig()
    prefetch_batches: Annotated[int, Field(ge=0)] = 2
    """Batches that a worker reads ahead; more of them bridge a shard that comes late."""
    log_every_steps: Annotated[int, Field(ge=1)] = 10
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 1000
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    validate_every_steps: Annotated[int, Field(ge=1)] = 1000
    validation_windows: Annotated[int, Field(ge=1)] = 64
    """Held-out windows to judge on, of each length that the stage trains on."""
    validation_async: AsyncValidationConfig | None = None
    """Validate in a Ray task while training goes on; None: in the workers, which wait."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often lost workers are started again from the last checkpoint."""
    min_workers: Annotated[int, Field(ge=1)] | None = None
    """Train with as few workers while the cluster cannot give ``resources.workers``; ZeRO 0 only.
    None: wait until it can."""
    peak_tflops: Annotated[float, Field(gt=0)] | None = None
    """Of one worker's device, for the share of it that is used (``mfu``); None: known GPUs' own."""
    tracking: TrackingConfig = TrackingConfig()
    threads_per_worker: Annotated[int, Field(ge=1)] | None = None
    """torch threads on CPU; None: the worker's CPUs."""


def check_stages(
    stages: Sequence[StageConfig],
    workers: int,
    min_workers: int | None = None,
    sequence_parallel: int = 1,
) -> None:
    """Raise UserError unless stages have names of their own and batches that divide.

    Args:
        stages: of the run.
        workers: as many as there are at most.
        min_workers: as few as the run may go on with; None: as many as `workers`.
        sequence_parallel: workers that share every sequence.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise UserError(f"stages {', '.join(names)}: each needs a name of its own")
    if (min_workers or 1) > workers:
        raise UserError(f"run.min_workers {min_workers}: allowed is up to {workers}, the workers")
    for count in range(min_workers or workers, workers + 1):
        if count % sequence_parallel:
            elastic = f", and run.min_workers {min_workers} lets a run have {count}"
            raise UserError(
                f"run.deepspeed.sequence_parallel: {sequence_parallel}; allowed is a divisor of "
                f"resources.workers {workers}{elastic if workers % sequence_parallel == 0 else ''}"
            )
        for stage in stages:
            _check_batch(stage, count // sequence_parallel, sequence_parallel)


def _check_batch(stage: StageConfig, groups: int, sequence_parallel: int) -> None:
    alone = sequence_parallel == 1
    if stage.batch_size % groups:
        many = "workers" if alone else f"groups of {sequence_parallel} workers"
        raise UserError(
            f"stage {stage.name}: batch_size {stage.batch_size} does not divide over "
            f"{groups} {many}"
        )
    share = stage.batch_size // groups
    if stage.micro_batch_size and share % stage.micro_batch_size:
        raise UserError(
            f"stage {stage.name}: {share} samples a {'worker' if alone else 'group'} do not divide "
            f"into micro-batches of {stage.micro_batch_size}"
        )


def deepspeed_dict(run: RunConfig, stage: StageConfig, workers: int) -> dict[str, Any]:
    """Return DeepSpeed's config of one stage; the only place that knows its key names."""
    settings = run.deepspeed
    share = stage.batch_size // (workers // settings.sequence_parallel)
    micro = stage.micro_batch_size or share
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if settings.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": workers * share,  # each worker's; those of a group read the same
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": share // micro,
        "gradient_clipping": settings.gradient_clipping,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": settings.precision == "bf16"},
        "fp16": {"enabled": settings.precision == "fp16"},
        "data_types": {"grad_accum_dtype": "fp32"} if settings.precision == "bf16" else {},
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
