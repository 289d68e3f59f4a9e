"""Sweep the early-frame weight λ, and whatever else of autoregressive training (Loong, Eq. 2).

Each trial is the job `train_autoregressive` with some of its keys changed: λ and K of Eq. 2, the
lengths of stages, learning rates. input: a finished artifact of kind `tokens`. output:
`trials.parquet`, `response.png`, and `best.yaml`, which `train_autoregressive` takes as it is.
"""

from typing import Any

import torch

from infra import config as configs
from infra.artifact import Output
from infra.errors import UserError
from infra.job import Job, execute, main
from models.autoregressive.loss import frame_range_losses
from models.autoregressive.sequence import latents_of_frames
from ray_jobs import train_autoregressive
from ray_jobs.train_autoregressive import TrainAutoregressiveConfig
from tuning import sweep
from tuning.space import Point
from tuning.sweep import SweepConfig, Trials

LOSSES = ("loss", "loss_nats")


class LossWeightConfig(SweepConfig):
    """Keys of ``python -m tuning.loss_weight``."""

    objective: str = "loss"
    """Held-out loss in nats per token, whatever λ; or `loss_frames_1` and the other ranges."""


def build(config: LossWeightConfig, point: Point) -> TrainAutoregressiveConfig:
    """Return a trial's config."""
    return configs.build(TrainAutoregressiveConfig, sweep.job_tree(config, point))


def _trials(config: LossWeightConfig) -> Trials:
    try:
        stages = build(config, {}).stages
    except UserError as error:
        from_base = "" if config.base else "; base=… takes them from a finished artifact"
        raise UserError(f"job: {error}{from_base}") from None
    longest = max(mix.frames for mix in stages[-1].data)
    ranges = frame_range_losses(torch.zeros(1, latents_of_frames(longest), 1, 1))
    figures = (*LOSSES, *ranges)

    def train(point: Point, uri: str) -> dict[str, float]:
        settings = build(config, point).model_copy(update={"output": uri})
        summary = execute(train_autoregressive.JOB, settings)
        return {
            **{name: float(summary["validation"][name]) for name in figures},
            "step": summary["steps"],
        }

    return Trials(lambda point: build(config, point), lambda: train, figures)


def plan(config: LossWeightConfig) -> list[str]:
    """Return what a sweep would do; see :class:`infra.job.Job`."""
    lines = sweep.plan(config, _trials(config))
    trial = train_autoregressive.plan(build(config, {}))
    return [*lines, "a trial, before its values are put in:", *(f"  {line}" for line in trial)]


def run(config: LossWeightConfig, output: Output) -> dict[str, Any]:
    """Run the sweep and return its summary."""
    return sweep.run(config, output, _trials(config))


JOB = Job("loss_weight", "sweep", LossWeightConfig, plan, run, package="tuning")

if __name__ == "__main__":
    main(JOB)
