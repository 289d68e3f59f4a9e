"""Compare how true film is continued over a join: strategies, re-encoded frames (Loong, Fig. 5).

Each trial is the job `continuation` with some of its keys changed; nothing is trained or sampled.
input: a finished `tokenizer`, a finished `autoregressive` and a finished `frames` artifact.
output: as of every sweep.
"""

from contextlib import nullcontext
from typing import Any

from infra.artifact import Output
from infra.job import Job, execute, main
from ray_jobs import continuation
from tuning import sweep
from tuning.config import SweepConfig
from tuning.space import Point
from tuning.sweep import Trials


class JoinsConfig(SweepConfig):
    """Keys of ``python -m tuning.joins``."""

    objective: str = "continuation_nats"
    """Mean -log p of the true tokens after the known ones; or `token_disagreement`."""


def _trials(config: JoinsConfig) -> Trials:
    def measure(point: Point, uri: str) -> dict[str, float]:
        settings = sweep.build(config, continuation.JOB, point).model_copy(update={"output": uri})
        summary = execute(continuation.JOB, settings)
        return {**{name: summary[name] for name in continuation.FIGURES}, "step": summary["films"]}

    return Trials(continuation.JOB, lambda: nullcontext(measure), continuation.FIGURES)


def plan(config: JoinsConfig) -> list[str]:
    """Return what a sweep would do; see :class:`infra.job.Job`."""
    return sweep.plan(config, _trials(config))


def run(config: JoinsConfig, output: Output) -> dict[str, Any]:
    """Run the sweep and return its summary."""
    return sweep.run(config, output, _trials(config))


JOB = Job("joins", "sweep", JoinsConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
