"""What may be varied, and which points come of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import config
from infra.config import Section
from infra.errors import UserError
from tuning.space import Parameter, Space, check, corners, grid_of, name_of, random_of


class Holder(Section):
    space: dict[str, Parameter]


def space_of(**tree: dict) -> Space:
    return config.build(Holder, {"space": tree}).space


def test_a_grid_has_every_combination_once_in_order():
    points = grid_of(space_of(a={"grid": [0, 1]}, b={"grid": ["x", None, 2.5]}))
    assert points == [{"a": a, "b": b} for b in ("x", None, 2.5) for a in (0, 1)]
    assert len({name_of(point) for point in points}) == 6


def test_a_grid_search_needs_grids():
    with pytest.raises(UserError, match=r"space.b: a grid search needs grid"):
        grid_of(space_of(a={"grid": [0]}, b={"uniform": [0, 1]}))


@given(st.integers(0, 1000), st.integers(1, 30))
def test_points_at_random_are_within_and_follow_from_the_seed(seed: int, trials: int):
    space = space_of(
        a={"grid": [1, 7]}, b={"uniform": [-2, 3]}, c={"log": [1e-5, 1e-2]}, d={"integer": [2, 9]}
    )
    points = random_of(space, trials, seed)
    assert points == random_of(space, trials, seed)
    assert points[: trials // 2] == random_of(space, trials // 2, seed) or not trials // 2
    assert len({name_of(point) for point in points}) == len(points) == trials
    for point in points:
        assert point["a"] in (1, 7)
        assert -2 <= point["b"] <= 3
        assert 1e-5 <= point["c"] <= 1e-2
        assert point["d"] in range(2, 10)
        assert [type(point[name]) for name in "abcd"] == [int, float, float, int]
        assert all(space[name].domain().is_valid(value) for name, value in point.items())


def test_a_small_space_gives_fewer_points_than_asked_for():
    assert len(random_of(space_of(a={"grid": [1, 2, 3]}), 10, 0)) == 3


def test_corners_hold_every_end():
    space = space_of(a={"grid": [1, 2, 3]}, b={"uniform": [0, 5]})
    points = list(corners(space))
    assert {point["a"] for point in points} == {1, 2, 3}
    assert {point["b"] for point in points} == {0, 5}


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({}, "nothing stated; give exactly one of grid, uniform, log, integer"),
        ({"grid": [1], "integer": [1, 2]}, "grid and integer stated"),
        ({"uniform": [3, 1]}, "from 3 to 1 holds nothing"),
        ({"log": [0, 1]}, "log from 0: allowed is above 0"),
        ({"grid": []}, "space.a.grid"),
        ({"gridd": [1]}, "space.a.gridd: unknown key"),
    ],
)
def test_parameters_that_cannot_be_are_refused(parameter: dict, said: str):
    with pytest.raises(UserError, match=said):
        space_of(a=parameter)


def test_a_space_is_tried_out_before_anything_runs():
    with pytest.raises(UserError, match="space: empty"):
        check(corners({}), lambda point: None)

    def build(point: dict) -> None:
        if point["a"] > 2:
            raise UserError("a: too much")

    with pytest.raises(UserError, match="space: a=3: a: too much"):
        check(corners(space_of(a={"grid": [1, 3]})), build)
