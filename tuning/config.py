"""The keys that every sweep has, and the configs and points that follow from them."""

import math
from copy import deepcopy
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from infra import config as configs
from infra import storage
from infra.config import JobConfig, Section, Uri
from infra.errors import UserError
from tuning.predictions import Prediction
from tuning.space import ARM, SEED, Parameter, Point, grid_of, random_of

MOST_POINTS = 10_000
ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
ITS_OWN = ("input", "output", "seed", "resources")
"""Keys of a trial that a sweep fills in."""


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
    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "trials_at_once")

    base: Uri | None = None
    """A finished artifact whose config the trials start from, or a YAML file of one."""
    job: dict[str, Any] = Field(default={})
    """Keys of the job that differ from the base's in all trials, such as {stages.images.steps: 30};
    input, output, seed and resources are the sweep's."""
    space: dict[str, Parameter] = Field(default={})
    """Key of the job to the values that it may take, such as {"videos_per_prompt": {grid: [1, 2]}}.
    Stages go by their names: `stages.long_clips.steps`."""
    arms: dict[ArmName, dict[str, Any]] = Field(default={})
    """Instead of a space, variants by name, each with the keys of the job that differ in it."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """Every arm or point is tried with each of them, and judged by the mean; None: with `seed`."""
    predictions: tuple[Prediction, ...] = ()
    """What is expected of the arms, and is held against what comes out, seed by seed."""
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

    @model_validator(mode="after")
    def _check(self) -> "SweepConfig":
        if self.arms and self.space:
            raise ValueError("arms and space are stated; give one of them")
        if self.arms and self.search != "grid":
            raise ValueError(f"search={self.search} with arms, which are tried as they are")
        if self.predictions and not self.arms:
            raise ValueError("predictions are of arms; there are none")
        if self.seeds is not None and self.search == "optuna":
            raise ValueError("seeds with search=optuna, which judges single trials")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)}: one of them is there twice")
        stated = {"job": self.job, "space": self.space}
        stated |= {f"arms.{name}": keys for name, keys in self.arms.items()}
        for where, keys in stated.items():
            for key in keys:
                if key.split(".")[0] in ITS_OWN:
                    raise ValueError(f"{where}.{key}: is the sweep's own; state it beside {where}")
        return self


def values_of(config: SweepConfig, point: Point) -> dict[str, Any]:
    """Return the keys of the job that a point sets: its own, or those of its arm."""
    if ARM in point:
        return config.arms[point[ARM]]
    return {key: value for key, value in point.items() if key != SEED}


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
    for name, value in (*config.job.items(), *values_of(config, point).items()):
        try:
            configs.put(tree, name, deepcopy(value))  # a later key may reach into it
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    return {
        **tree,
        "input": list(config.input),
        "output": storage.join(config.output, "trials"),
        "seed": point.get(SEED, config.seed),
        "resources": configs.as_tree(config.resources),
    }


def points_of(config: SweepConfig) -> list[Point] | None:
    """Return the arms, or the points of a grid or of a random search; None where Optuna chooses.

    With seeds all are there for the first one, then for the next.
    """
    trials = config.budget.trials
    if config.search != "grid" and trials is None:
        raise UserError(f"budget.trials: missing; search={config.search} needs it")
    if config.search == "optuna":
        return None
    seeds = config.seeds or (None,)
    if config.arms:
        points = [{ARM: name} for name in config.arms]
    elif config.search == "random":
        assert trials is not None
        points = random_of(config.space, -(-trials // len(seeds)), config.seed)
    else:
        count = math.prod(len(p.grid or ()) for p in config.space.values())
        if count > MOST_POINTS:
            raise UserError(f"space: {count} points; allowed are {MOST_POINTS}, or search=random")
        points = grid_of(config.space)
    with_seeds = [
        point if seed is None else {**point, SEED: seed} for seed in seeds for point in points
    ]
    return with_seeds[:trials]
