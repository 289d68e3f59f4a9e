"""Sweep the early-frame weight λ, and whatever else of autoregressive training (Loong, Eq. 2).

Each trial is the job `train_autoregressive` with some of its keys changed: λ and K of Eq. 2, the
lengths of stages, learning rates. input: a finished artifact of kind `tokens`. output:
`trials.parquet`, `response.png`, and `best.yaml`, which `train_autoregressive` takes as it is.
"""

from contextlib import nullcontext
from typing import Any

import torch

from infra.artifact import Output
from infra.job import Job, execute, main
from models.autoregressive.loong.loss import frame_range_losses
from ray_jobs import train_autoregressive
from tuning import sweep
from tuning.config import SweepConfig
from tuning.space import Point
from tuning.sweep import Trials

LOSSES = ("loss", "loss_nats")


class LossWeightConfig(SweepConfig):
    """Keys of ``python -m tuning.loss_weight``."""

    objective: str = "loss"
    """Held-out loss in nats per token, whatever λ; or `loss_frames_1` and the other ranges."""


def _trials(config: LossWeightConfig) -> Trials:
    base = sweep.base(config, train_autoregressive.JOB)
    longest = max(mix.frames for mix in base.stages[-1].data)
    codec = train_autoregressive.codec_of(base.input[0])
    ranges = frame_range_losses(torch.zeros(1, codec.latents_of_frames(longest), 1, 1), codec)
    figures = (*LOSSES, *ranges)

    def train(point: Point, uri: str) -> dict[str, float]:
        settings = sweep.build(config, train_autoregressive.JOB, point).model_copy(
            update={"output": uri}
        )
        summary = execute(train_autoregressive.JOB, settings)
        return {
            **{
                name: float(summary["validation"][name])
                for name in figures
                if name in summary["validation"]  # an arm may have shorter clips
            },
            "step": summary["steps"],
        }

    return Trials(train_autoregressive.JOB, lambda: nullcontext(train), figures)


def plan(config: LossWeightConfig) -> list[str]:
    """Return what a sweep would do; see :class:`infra.job.Job`."""
    return sweep.plan(config, _trials(config))


def run(config: LossWeightConfig, output: Output) -> dict[str, Any]:
    """Run the sweep and return its summary."""
    return sweep.run(config, output, _trials(config))


JOB = Job("loss_weight", "sweep", LossWeightConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
