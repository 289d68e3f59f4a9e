"""Sweep how tokens are drawn: k, temperature and the frames that are re-encoded (Loong, 3.3, 4.2).

Each trial is the job `generate` with some of its keys changed; nothing is trained, and all trials
share the actors that hold the models. input: a finished `tokenizer` and a finished
`autoregressive` artifact. output: `trials.parquet`, `response.png`, and `best.yaml`, which
`generate` takes as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from infra.artifact import Output
from infra.config import Uri
from infra.job import Job, execute, main
from ray_jobs import generate
from ray_jobs.evaluate import FILM_DISTANCE, figures_of
from ray_jobs.evaluation import reference
from ray_jobs.evaluation.measures_table import FIGURES
from tuning import sweep
from tuning.config import SweepConfig
from tuning.space import Point
from tuning.sweep import RunTrial, Trials


class TopKConfig(SweepConfig):
    """Keys of ``python -m tuning.top_k``."""

    input_keys: ClassVar[tuple[str, ...]] = (*SweepConfig.input_keys, "reference")

    reference: Uri | None = None
    """Measures of held-out film, for `film_distance`; None: wide ranges of film as such."""
    objective: str = FILM_DISTANCE
    """Means over a trial's videos: `film_distance`, by how many steps a video's worst figure is
    from the middle of film's range (a sharp still may beat a video without detail); or a single
    figure: `motion` (0 to 255), `sharpness`, `sharpness_ratio` (last window over first),
    `frame_correlation` (0 of noise, 1 of a still), `brightness_change`, `colour_drift` (0 to 442),
    `join_colour_drift`."""


def _trials(config: TopKConfig) -> Trials:
    base = sweep.base(config, generate.JOB)
    of_film = None if config.reference is None else reference.ranges_of(config.reference)

    @contextmanager
    def begin() -> Iterator[RunTrial]:
        actors = generate.start_actors(base.model_copy(update={"resources": config.resources}))

        def make(point: Point, uri: str) -> dict[str, float]:
            job = replace(generate.JOB, run=lambda c, output: generate.run(c, output, actors))
            settings = sweep.build(config, generate.JOB, point).model_copy(update={"output": uri})
            execute(job, settings)
            return {
                **figures_of(uri, of_film),
                "step": len(settings.prompts) * settings.videos_per_prompt,
            }

        try:
            yield make
        finally:
            actors.close()  # Ray Tune's own reference lasts as long as the session

    varied = [*config.space, *(key for arm in config.arms.values() for key in arm)]
    joined = base.system.extension.joins or any(
        key.startswith("system.extension.") for key in varied
    )
    figures = [FILM_DISTANCE, *(n for n in FIGURES if joined or n != "join_colour_drift")]
    return Trials(generate.JOB, begin, tuple(figures), shared=True)


def plan(config: TopKConfig) -> list[str]:
    """Return what a sweep would do; see :class:`infra.job.Job`."""
    return sweep.plan(config, _trials(config))


def run(config: TopKConfig, output: Output) -> dict[str, Any]:
    """Run the sweep and return its summary."""
    return sweep.run(config, output, _trials(config))


JOB = Job("top_k", "sweep", TopKConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
