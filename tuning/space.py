"""Search space of a sweep: parameters by name, each with the values that it may take."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any

from pydantic import Field, model_validator
from ray import tune
from ray.tune.search.sample import Domain
from ray.tune.search.variant_generator import generate_variants

from infra.config import Section
from infra.errors import UserError
from infra.seeding import rng

Value = bool | int | float | str | None
ARM, SEED = "arm", "seed"
"""Keys of a point that are no parameters."""
Point = dict[str, Any]
"""One value for each parameter, or the name of an arm; with seeds one of them."""
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

    def ends(self) -> tuple[Value, ...]:
        """Return the values to try out a config with: all of a grid, else the two ends."""
        return self.grid or self.uniform or self.log or self.integer or ()

    def domain(self) -> Domain:
        """Return the values as Ray Tune draws them."""
        if self.grid is not None:
            return tune.choice(list(self.grid))
        if self.integer is not None:
            return tune.randint(self.integer[0], self.integer[1] + 1)
        if self.log is not None:
            return tune.loguniform(*self.log)
        assert self.uniform is not None
        return tune.uniform(*self.uniform)


Space = Mapping[str, Parameter]


def name_of(point: Point) -> str:
    """Return the name of a trial: its arm and seed, or 12 hex digits over its values."""
    if ARM in point:
        return f"{point[ARM]}-seed_{point[SEED]}" if SEED in point else point[ARM]
    return sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:12]


def grid_of(space: Space) -> list[Point]:
    """Return every combination of the values, in Ray Tune's order.

    Raises:
        UserError: a parameter has no grid.
    """
    for name, parameter in space.items():
        if parameter.grid is None:
            raise UserError(f"space.{name}: a grid search needs grid; or set search=random")
    grids: dict[str, Any] = {
        name: tune.grid_search(list(parameter.grid or ())) for name, parameter in space.items()
    }
    return [point for _, point in generate_variants(grids)]


def random_of(space: Space, trials: int, seed: int) -> list[Point]:
    """Return so many different points drawn by the seed; fewer where there are no more."""
    random = rng(seed, "space")
    domains = domains_of(space)
    found: dict[str, Point] = {}
    for _ in range(100 * trials):
        for _, point in generate_variants(domains, random_state=random):
            found.setdefault(name_of(point), point)
        if len(found) == trials:
            break
    return list(found.values())


def domains_of(space: Space) -> dict[str, Any]:
    """Return what Ray Tune and Optuna draw a point from."""
    return {name: parameter.domain() for name, parameter in space.items()}


def corners(space: Space) -> Iterator[Point]:
    """Yield points that between them have the ends of every parameter, each with others' first."""
    first = {name: parameter.ends()[0] for name, parameter in space.items()}
    if first:
        yield first
    for name, parameter in space.items():
        for value in parameter.ends()[1:]:
            yield {**first, name: value}


def check(points: Iterable[Point], build: Callable[[Point], Any]) -> None:
    """Raise UserError unless there are points and a config can be built with each.

    Args:
        points: arms, or the corners of a space.
        build: makes a trial's config; its error names the key.
    """
    there = False
    for point in points:
        there = True
        try:
            build(point)
        except UserError as error:
            stated = ", ".join(f"{name}={value}" for name, value in point.items())
            raise UserError(f"{'arms' if ARM in point else 'space'}: {stated}: {error}") from None
    if not there:
        raise UserError(
            "space: empty; give at least one parameter, such as space.NAME.grid=[0,1], or arms"
        )
