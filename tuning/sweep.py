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
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import ray
from pydantic import Field
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from infra import config as configs
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig, Section, Uri
from infra.errors import UserError, one_line
from infra.progress import say
from tuning import report
from tuning.space import Parameter, Point, check, grid_of, name_of, random_of

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
REFUSED = "refused"
"""Key of a last report that says why a trial cannot be."""
MOST_POINTS = 10_000
MOST_LOST = 2
"""How often a trial whose process was lost is begun again."""


class Asha(Section):
    """Trials that are behind are stopped early (Li et al. 2020, ASHA)."""

    grace_steps: Annotated[int, Field(ge=1)] = 1
    """No trial is stopped before so many steps."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on at each rung."""


class Budget(Section):
    """What a sweep may take in all, over all attempts; whatever is used up first ends it."""

    trials: Annotated[int, Field(ge=1)] | None = None
    """Trials; `random` and `optuna` need it."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of all trials together."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Of wall time."""


class SweepConfig(JobConfig):
    """Keys that every sweep has."""

    input_keys: ClassVar[tuple[str, ...]] = ("input", "base")

    base: Uri | None = None
    """A finished artifact whose config the trials start from, or a YAML file of one."""
    job: dict[str, Any] = Field(default={})
    """Keys of the job that differ from the base's in all trials, such as {stages.images.steps: 30};
    input, output, seed and resources are the sweep's."""
    space: dict[str, Parameter] = Field(default={})
    """Key of the job to the values that it may take, such as {"sampling.top_k": {grid: [1, 50]}}.
    Stages go by their names: `stages.long_clips.steps`."""
    objective: str
    """The figure that trials are judged by."""
    mode: Literal["min", "max"] = "min"
    """Whether the least or the greatest is best."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """All combinations, points drawn by the seed, or points that Optuna chooses (TPE)."""
    asha: Asha | None = None
    """Stop trials early that are behind; None lets all of them end."""
    budget: Budget = Budget()
    trials_at_once: Annotated[int, Field(ge=1)] = 1
    """Trials that run at the same time, each with `resources`."""


@dataclass
class Record:
    """What a trial came to."""

    name: str
    point: Point
    state: str
    """`finished`, `stopped` (early, or by the budget), or `failed`."""
    objective: float | None
    steps: int
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    """Everything that it reported last."""
    error: str = ""


RunTrial = Callable[[Point, str], dict[str, float]]
"""Runs a trial in a process of its own, into a URI, and returns its figures and ``step``, the steps
that it took. It may report both to Ray Tune before that."""


@dataclass(frozen=True)
class Trials:
    """What a kind of sweep has to say of its trials."""

    build: Callable[[Point], JobConfig]
    """Makes a trial's config, whose output is not yet below the sweep's."""
    begin: Callable[[], RunTrial]
    """Called once before the first trial, and returns what runs each."""
    figures: tuple[str, ...]
    """The names of the figures that a trial reports."""
    shared: bool = False
    """Whether all trials together have the sweep's `resources`, and not each of them."""


def job_tree(config: SweepConfig, point: Point) -> dict[str, Any]:
    """Return a trial's config as a tree: the base's, with the sweep's keys and a point put in.

    Raises:
        UserError: there is no such base, or a key leads nowhere.
    """
    tree: dict[str, Any] = {}
    if config.base is not None:
        is_file = config.base.endswith((".yaml", ".yml"))
        file = config.base if is_file else storage.join(config.base, "config.yaml")
        tree = configs.read_yaml(file)
    for name, value in (*config.job.items(), *point.items()):
        try:
            configs.put(tree, name, deepcopy(value))  # a later key may reach into it
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    return {
        **tree,
        "input": list(config.input),
        "output": storage.join(config.output, "trials"),
        "seed": config.seed,
        "resources": configs.as_tree(config.resources),
    }


def points_of(config: SweepConfig) -> list[Point] | None:
    """Return the points of a grid or of a random search; None where Optuna chooses them."""
    trials = config.budget.trials
    if config.search != "grid" and trials is None:
        raise UserError(f"budget.trials: missing; search={config.search} needs it")
    if config.search == "optuna":
        return None
    if config.search == "random":
        assert trials is not None
        return random_of(config.space, trials, config.seed)
    count = math.prod(len(p.grid or ()) for p in config.space.values())
    if count > MOST_POINTS:
        raise UserError(f"space: {count} points; allowed are {MOST_POINTS}, or search=random")
    return grid_of(config.space)[:trials]


def plan(config: SweepConfig, trials: Trials) -> list[str]:
    """Return what a sweep would do, everything checked that can be before a trial starts."""
    check(config.space, trials.build)
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
        f"best: the {config.mode} of {config.objective}",
        *([f"early stops: {config.asha}"] if config.asha else []),
        *budget,
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
        say(f"sweep: {len(records.known)} trials have ended in an earlier run")
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
    settled = trials.build(best.point)
    report.write(config, output, [asdict(record) for record in records.all()], asdict(best))
    storage.write_text(output.path("best.yaml"), report.best_yaml(config, settled, asdict(best)))
    storage.remove(output.path("tune"))
    return {
        "trials": len(records.known),
        **{state: sum(r.state == state for r in records.all()) for state in (STOPPED, FAILED)},
        "steps": sum(record.steps for record in records.all()),
        "best": {"trial": best.name, **best.point, config.objective: best.objective},
    }


class Records(tune.Callback):
    """Writes a record when a trial ends, says how things stand, and watches the budget."""

    def __init__(self, config: SweepConfig, output: Output, figures: tuple[str, ...]) -> None:
        self._config, self._output, self._figures = config, output, figures
        self._last: dict[str, dict[str, Any]] = {}
        self.known: dict[str, Record] = {}
        self.lost: dict[str, str] = {}
        """Trials that ended without a word, by name, and why."""
        for file in storage.list_files(output.path("records"), (".json",)):
            record = Record(**storage.read_json(file))
            self.known[record.name] = record

    def all(self) -> list[Record]:
        """Return every trial that has ended, in the order of names."""
        return [self.known[name] for name in sorted(self.known)]

    def best(self) -> Record | None:
        """Return the best of the trials that ran to their end."""
        judged = [r for r in self.all() if r.state == FINISHED and r.objective is not None]
        if not judged:
            return None
        sign = 1 if self._config.mode == "min" else -1
        return min(judged, key=lambda record: sign * (record.objective or 0.0))

    def spent(self) -> bool:
        """Return whether the budget of steps or hours is used up."""
        budget, records = self._config.budget, self.known.values()
        steps = sum(r.steps for r in records) + sum(
            int(figures.get("step", 0))
            for name, figures in self._last.items()
            if name not in self.known
        )
        hours = (sum(r.seconds for r in records) / self._config.trials_at_once) / 3600
        return bool(
            (budget.steps and steps >= budget.steps) or (budget.hours and hours >= budget.hours)
        )

    def left_s(self) -> float | None:
        """Return the seconds of wall time that are left; None without such a budget."""
        hours = self._config.budget.hours
        if hours is None:
            return None
        used = sum(record.seconds for record in self.known.values()) / self._config.trials_at_once
        return max(hours * 3600 - used, 1.0)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict, **info: Any
    ) -> None:
        """Remember what a trial said last."""
        point = _point(trial)
        self._last[name_of(point)] = {**result, "point": point}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the trial's record."""
        self._settle(name_of(_point(trial)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Leave a lost trial without a record, so that a rerun begins it again."""
        name = name_of(_point(trial))
        self._last.pop(name, None)
        self.lost[name] = one_line(trial.get_error() or ValueError("no word of why"), 300)

    def settle(self) -> None:
        """Write the records of trials that the budget has cut off, too."""
        for name in set(self._last).difference(self.known):
            self._settle(name)

    def _settle(self, name: str) -> None:
        said = self._last[name]
        refused = str(said.get(REFUSED, ""))
        figures = {key: float(said[key]) for key in self._figures if key in said}
        record = Record(
            name=name,
            point=said["point"],
            state=FAILED if refused else FINISHED if said.get("ended") else STOPPED,
            objective=None if refused else figures.get(self._config.objective),
            steps=int(said.get("step", 0)),
            seconds=round(float(said.get("time_total_s", 0.0)), 2),
            figures={} if refused else figures,
            error=refused,
        )
        self.known[name] = record
        storage.write_json(self._output.path("records", f"{name}.json"), asdict(record))
        for line in report.table_lines(self._config, [asdict(r) for r in self.all()]):
            say(line)


def _point(trial: Any) -> Point:
    config = dict(trial.config)
    return dict(config.get("point", config))


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
            {name: parameter.distribution() for name, parameter in config.space.items()},
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
    trainable = tune.with_resources(
        tune.with_parameters(
            _trial, run=trials.begin(), folder=output.path("trials"), config=config
        ),
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
    point = dict(point.get("point", point))
    try:
        figures = run(point, storage.join(folder, name_of(point)))
    except UserError as error:  # these values cannot be; others can
        worst = math.inf if config.mode == "min" else -math.inf
        tune.report({config.objective: worst, REFUSED: str(error), "ended": True})
        return
    tune.report({**figures, "ended": True})
