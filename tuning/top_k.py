"""Sweep how tokens are drawn: k, temperature and the frames that are re-encoded (Loong, 3.3, 4.2).

Each trial is the job `generate` with some of its keys changed; nothing is trained, and all trials
share the actors that hold the models. input: a finished `tokenizer` and a finished
`autoregressive` artifact. output: `trials.parquet`, `response.png`, and `best.yaml`, which
`generate` takes as it is.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray

from infra import storage
from infra.artifact import Output
from infra.errors import UserError
from infra.job import Job, execute, main
from ray_jobs import generate
from ray_jobs.evaluate import EvaluateConfig, measure
from ray_jobs.generate import Models
from tuning import sweep
from tuning.config import SweepConfig
from tuning.space import Point
from tuning.sweep import RunTrial, Trials

FIGURES = ("motion", "colour_drift", "join_colour_drift", "sharpness_ratio")


class TopKConfig(SweepConfig):
    """Keys of ``python -m tuning.top_k``."""

    objective: str = "colour_drift"
    """Means over a trial's videos: `colour_drift`, how far the last window's mean colour is from
    the first one's (0 to 442); `motion` (0 to 255); `join_colour_drift`, the same over joins alone;
    `sharpness_ratio`, the last window's sharpness over the first one's."""


def figures_of(uri: str) -> dict[str, float]:
    """Return the figures of a finished artifact of kind ``videos``, means over its videos.

    A figure that a video cannot have (drift over joins where there are none) is left out.
    """
    with storage.open_input(storage.join(uri, "videos.parquet")) as file:
        rows = pq.read_table(file).to_pylist()
    settings = EvaluateConfig(input=(uri,), output=uri)
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for row in rows:
        record, _ = measure(storage.join(uri, row["file"]), row, settings)
        if record["problem"] is not None or record["motion"] is None:
            raise UserError(f"{row['file']}: {record['problem'] or 'a single frame'}")
        first, last = record["windows"][0], record["windows"][-1]
        found["motion"].append(record["motion"])
        found["colour_drift"].append(last["colour_distance"])
        found["sharpness_ratio"].append(last["sharpness"] / max(first["sharpness"], 1e-9))
        found["join_colour_drift"] += row["join_colour_drift"] or []
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _trials(config: TopKConfig) -> Trials:
    base = sweep.base(config, generate.JOB)

    def begin() -> RunTrial:
        each = config.resources
        models = ray.remote(num_cpus=each.cpus_per_worker, num_gpus=each.gpus_per_worker)(Models)
        actors: list[Any] = [
            models.remote(base, *generate.sources(base)) for _ in range(each.workers)
        ]

        def make(point: Point, uri: str) -> dict[str, float]:
            job = replace(generate.JOB, run=lambda c, output: generate.run(c, output, actors))
            settings = sweep.build(config, generate.JOB, point).model_copy(update={"output": uri})
            execute(job, settings)
            return {**figures_of(uri), "step": len(settings.prompts) * settings.videos_per_prompt}

        return make

    return Trials(generate.JOB, begin, FIGURES, shared=True)


def plan(config: TopKConfig) -> list[str]:
    """Return what a sweep would do; see :class:`infra.job.Job`."""
    return sweep.plan(config, _trials(config))


def run(config: TopKConfig, output: Output) -> dict[str, Any]:
    """Run the sweep and return its summary."""
    return sweep.run(config, output, _trials(config))


JOB = Job("top_k", "sweep", TopKConfig, plan, run, package="tuning")

if __name__ == "__main__":
    main(JOB)
