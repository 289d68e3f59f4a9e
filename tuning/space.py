"""What a sweep varies: parameters by name, each with the values that it may take."""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import product
from typing import Annotated, Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, model_validator

from infra.config import Section
from infra.errors import UserError
from infra.seeding import rng

Value = bool | int | float | str | None
Point = dict[str, Any]
"""One value for each parameter."""
Two = Annotated[tuple[float, float], Field(min_length=2, max_length=2)]


class Parameter(Section):
    """The values of one parameter; exactly one of the keys is stated."""

    grid: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None
    """These, one after the other or drawn, as the search has it."""
    uniform: Two | None = None
    """Numbers between two."""
    log: Two | None = None
    """The same, evenly spread over their logarithm; above 0."""
    integer: tuple[int, int] | None = None
    """Whole numbers between two, both included."""

    @model_validator(mode="after")
    def _check(self) -> "Parameter":
        stated = [key for key in type(self).model_fields if getattr(self, key) is not None]
        if len(stated) != 1:
            raise ValueError(
                f"{' and '.join(stated) or 'nothing'} stated; give exactly one of "
                f"{', '.join(type(self).model_fields)}"
            )
        ends = self.uniform or self.log or self.integer
        if ends and not ends[0] < ends[1]:
            raise ValueError(f"from {ends[0]:g} to {ends[1]:g} holds nothing")
        if self.log and self.log[0] <= 0:
            raise ValueError(f"log from {self.log[0]:g}: allowed is above 0")
        return self

    def draw(self, random: np.random.Generator) -> Value:
        """Return a value at random."""
        if self.grid is not None:
            return self.grid[int(random.integers(len(self.grid)))]
        if self.integer is not None:
            return int(random.integers(self.integer[0], self.integer[1] + 1))
        if self.log is not None:
            low, high = np.log(self.log)
            return float(np.exp(random.uniform(low, high)))
        assert self.uniform is not None
        return float(random.uniform(*self.uniform))

    def ends(self) -> tuple[Value, ...]:
        """Return the values to try out a config with: all of a grid, else the two ends."""
        return self.grid or self.uniform or self.log or self.integer or ()

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from."""
        if self.grid is not None:
            return CategoricalDistribution(self.grid)
        if self.integer is not None:
            return IntDistribution(*self.integer)
        if self.log is not None:
            return FloatDistribution(*self.log, log=True)
        assert self.uniform is not None
        return FloatDistribution(*self.uniform)


Space = Mapping[str, Parameter]


def name_of(point: Point) -> str:
    """Return the name of a trial: 12 hex digits over its values."""
    return sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:12]


def grid_of(space: Space) -> list[Point]:
    """Return every combination of the values, the first parameter varying slowest.

    Raises:
        UserError: a parameter has no grid.
    """
    values = []
    for name, parameter in space.items():
        if parameter.grid is None:
            raise UserError(f"space.{name}: a grid search needs grid; or set search=random")
        values.append(parameter.grid)
    return [dict(zip(space, chosen, strict=True)) for chosen in product(*values)]


def random_of(space: Space, trials: int, seed: int) -> list[Point]:
    """Return so many different points drawn by the seed; fewer where there are no more."""
    random = rng(seed, "space")
    found: dict[str, Point] = {}
    for _ in range(100 * trials):
        point = {name: parameter.draw(random) for name, parameter in space.items()}
        found.setdefault(name_of(point), point)
        if len(found) == trials:
            break
    return list(found.values())


def corners(space: Space) -> Iterator[Point]:
    """Yield points that between them have the ends of every parameter, each with others' first."""
    first = {name: parameter.ends()[0] for name, parameter in space.items()}
    yield first
    for name, parameter in space.items():
        for value in parameter.ends()[1:]:
            yield {**first, name: value}


def check(space: Space, build: Callable[[Point], Any]) -> None:
    """Raise UserError unless there are parameters and a config can be built with their ends.

    Args:
        space: of a sweep.
        build: makes a trial's config; its error names the key.
    """
    if not space:
        raise UserError("space: empty; give at least one parameter, such as space.NAME.grid=[0,1]")
    for point in corners(space):
        try:
            build(point)
        except UserError as error:
            said = ", ".join(f"{name}={value}" for name, value in point.items())
            raise UserError(f"space: {said}: {error}") from None
