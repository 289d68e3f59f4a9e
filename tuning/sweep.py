"""A sweep: trials of one job on Ray Tune, resumed from what each finished trial left behind.

::

    space ─points─▶ trials (Ray Tune: order, early stops, budget) ─▶ records/*.json, one a trial
                                        trials.parquet, best.yaml, response.png ◀─┘

A trial is named by its values. What it came to is a record, written when it ends; a rerun starts
the trials that have none. Ray Tune's own state is pickled, so nothing is restored from it.
"""

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from infra import config as configs
from infra import storage
from infra.artifact import Output
from infra.errors import UserError
from infra.job import Job
from infra.log import logger
from tuning import predictions, report
from tuning.config import SweepConfig, job_tree, points_of
from tuning.records import FAILED, REFUSED, STOPPED, Records, point_of
from tuning.space import ARM, SEED, Parameter, Point, check, corners, domains_of, name_of

MOST_LOST = 2
"""How often a trial whose process was lost is begun again."""


RunTrial = Callable[[Point, str], dict[str, float]]
"""Runs a trial in a process of its own, into a URI, and returns its figures and ``step``, the steps
that it took. It may report both to Ray Tune before that."""


@dataclass(frozen=True)
class Trials:
    """What a kind of sweep has to say of its trials."""

    job: Job[Any]
    """What a trial is, with some keys changed."""
    begin: Callable[[], AbstractContextManager[RunTrial]]
    """Entered once before the first trial; gives what runs each, and is left after the last."""
    figures: tuple[str, ...]
    """The names of the figures that a trial reports."""
    shared: bool = False
    """Whether all trials together have the sweep's `resources`, and not each of them."""


def build(config: SweepConfig, job: Job[Any], point: Point) -> Any:
    """Return a trial's config, whose output is not yet the trial's own."""
    return configs.build(job.config, job_tree(config, point))


def base(config: SweepConfig, job: Job[Any]) -> Any:
    """Return the config of a trial before a point is put in.

    Raises:
        UserError: it is no config of the job.
    """
    try:
        return build(config, job, {})
    except UserError as error:
        from_base = "" if config.base else "; base=… takes them from a finished artifact"
        raise UserError(f"job: {error}{from_base}") from None


def plan(config: SweepConfig, trials: Trials) -> list[str]:
    """Return what a sweep would do, everything checked that can be before a trial starts."""
    tried = [{ARM: name} for name in config.arms] or corners(config.space)
    check(tried, lambda point: build(config, trials.job, point))
    predictions.check(config.predictions, tuple(config.arms), trials.figures)
    points = points_of(config)
    if config.objective not in trials.figures:
        raise UserError(
            f"objective: {config.objective} is reported by no trial; allowed are "
            f"{', '.join(trials.figures)}"
        )
    count = config.budget.trials if points is None else len(points)
    budget = [
        f"at most {value} {name}"
        for name, value in configs.as_tree(config.budget).items()
        if value and name != "trials"
    ]
    each = config.resources
    who = "together" if trials.shared else "each"
    return [
        f"{count} trials by {config.search} search, {config.trials_at_once} at once, {who} with "
        f"{each.workers} x {each.cpus_per_worker:g} CPUs, {each.gpus_per_worker:g} GPUs",
        *(f"vary {name}: {_values(parameter)}" for name, parameter in config.space.items()),
        *(f"arm {name}: {keys}" for name, keys in config.arms.items()),
        *([f"each with the seeds {', '.join(map(str, config.seeds))}"] if config.seeds else []),
        *(f"predicted: {each.says}" for each in config.predictions),
        f"best: the {config.mode} of {config.objective}",
        *([f"early stops: {config.asha}"] if config.asha else []),
        *budget,
        "a trial, before its values are put in:",
        *(f"  {line}" for line in trials.job.plan(base(config, trials.job))),
    ]


def _values(parameter: Parameter) -> str:
    stated = {k: v for k, v in configs.as_tree(parameter).items() if v is not None}
    return ", ".join(f"{kind} {value}" for kind, value in stated.items())


def run(config: SweepConfig, output: Output, trials: Trials) -> dict[str, Any]:
    """Run the trials that have no record yet, write tables and pictures; return the summary."""
    records = Records(config, output, trials.figures)
    points = points_of(config)
    if points is not None:
        points = [point for point in points if name_of(point) not in records.known]
    if records.known:
        logger.info(f"sweep: {len(records.known)} trials have ended in an earlier run")
    if (points is None or points) and not records.spent():
        _tune(config, output, trials, points, records)
    if records.lost:
        raise UserError(
            f"{len(records.lost)} trials were lost ({next(iter(records.lost.values()))}); the same "
            "command goes on from here"
        )
    best = records.best()
    if best is None:
        first = next((r.error for r in records.all() if r.error), "none ended within the budget")
        raise UserError(f"no trial has a {config.objective}: {first}")
    first = best.records[0]
    settled = build(config, trials.job, first.point)
    rows = [asdict(record) for record in records.all()]
    report.write(config, output, rows, {record.name for record in best.records})
    text = report.best_yaml(config, settled, first.name, first.point, best.objective)
    storage.write_text(output.path("best.yaml"), text)
    storage.remove(output.path("tune"))
    outcome = predictions.outcomes(
        config.predictions, records.by_arm() if config.arms else {}, config.seeds or (config.seed,)
    )
    for line in predictions.lines(outcome):
        logger.info(line)
    return {
        "trials": len(records.known),
        **{state: sum(r.state == state for r in records.all()) for state in (STOPPED, FAILED)},
        "steps": sum(record.steps for record in records.all()),
        "best": {
            "trials": [record.name for record in best.records],
            **{key: value for key, value in first.point.items() if key != SEED},
            config.objective: best.objective,
        },
        **({"predictions": outcome} if outcome else {}),
    }


class _Watch(tune.Stopper):
    """Ends the sweep when its budget is used up."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._records.spent()


def _tune(
    config: SweepConfig,
    output: Output,
    trials: Trials,
    points: list[Point] | None,
    records: Records,
) -> None:
    """Run trials: the given points, or as many as Optuna may still choose."""
    _check_free(config, 1 if trials.shared else config.trials_at_once)
    search, samples, space = None, 1, None
    if points is None:
        assert config.budget.trials is not None
        samples = config.budget.trials - len(records.known)
        if samples < 1:
            return
        before = [r for r in records.all() if r.objective is not None]
        search = OptunaSearch(
            OptunaSearch.convert_search_space(domains_of(config.space)),
            metric=config.objective,
            mode=config.mode,
            seed=config.seed + len(before),  # else it would draw again what it has drawn
            points_to_evaluate=[r.point for r in before] or None,
            evaluated_rewards=[r.objective for r in before] or None,
        )
    else:
        space = {"point": tune.grid_search(points)}
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the job, not only the trial
    scheduler = None
    if config.asha:
        scheduler = ASHAScheduler(
            time_attr="step",
            grace_period=config.asha.grace_steps,
            reduction_factor=config.asha.reduction_factor,
            max_t=10**9,
        )
    filesystem, path = storage.arrow_filesystem(output.uri)
    with trials.begin() as run:
        trainable = tune.with_resources(
            tune.with_parameters(_trial, run=run, folder=output.path("trials"), config=config),
            {"memory": 1 << 20},  # next to nothing: its job asks for what it needs
        )
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=config.objective,
                mode=config.mode,
                search_alg=search,
                scheduler=scheduler,
                num_samples=samples,
                max_concurrent_trials=config.trials_at_once,
                reuse_actors=True,
                time_budget_s=records.left_s(),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=path,
                storage_filesystem=filesystem,
                stop=_Watch(records),
                failure_config=tune.FailureConfig(max_failures=MOST_LOST),
                callbacks=[records],
                verbose=0,
            ),
        )
        tuner.fit()
    records.settle()


def _check_free(config: SweepConfig, trials: int) -> None:
    each, there = config.resources, ray.cluster_resources()
    for kind, wanted in (("CPU", each.cpus_per_worker), ("GPU", each.gpus_per_worker)):
        if wanted * each.workers * trials > there.get(kind, 0):
            raise UserError(
                f"resources: {trials} trials of {each.workers} workers with {wanted:g} {kind} "
                f"need {wanted * each.workers * trials:g}; the cluster has {there.get(kind, 0):g}"
            )


def _trial(point: dict[str, Any], run: RunTrial, folder: str, config: SweepConfig) -> None:
    """Run one trial in its process and report what it came to."""
    point = point_of(point)
    try:
        figures = run(point, storage.join(folder, name_of(point)))
    except UserError as error:  # these values cannot be; others can
        worst = math.inf if config.mode == "min" else -math.inf
        tune.report({config.objective: worst, REFUSED: str(error), "ended": True})
        return
    tune.report({**figures, "ended": True})
