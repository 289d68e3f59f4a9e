"""The picture of a sweep: a panel a parameter or figure, with the spread between seeds."""

import io

import numpy as np
import pytest
from PIL import Image

from tuning import plot
from tuning.plot import Dot, Panel

DOTS = [Dot(0, 1.0), Dot(0, 3.0), Dot(1, 5.0, best=True), Dot(1, 99.0, ended=False)]


def picture(*panels: Panel) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(plot.png(panels))).convert("RGB"), int)


def test_the_spread_is_of_the_trials_that_ended():
    assert plot.spread(DOTS) == [(0, 1.0, 2.0, 3.0), (1, 5.0, 5.0, 5.0)]


def test_three_panels_stand_beside_each_other_and_more_below():
    panel = Panel("k", "loss", DOTS, ["1", "50"])
    height, width = picture(panel).shape[:2]
    assert picture(*[panel] * 3).shape[:2] == (height, 3 * width)
    assert picture(*[panel] * 4).shape[:2] == (2 * height, 3 * width)


def test_the_best_is_ringed():
    plain = [Dot(dot.x, dot.y, dot.ended) for dot in DOTS]
    ringed, bare = (picture(Panel("k", "loss", dots, ["1", "50"])) for dots in (DOTS, plain))
    amber = np.array([int(plot.AMBER[at : at + 2], 16) for at in (1, 3, 5)])
    near = [(np.abs(shown - amber).sum(axis=2) < 30).sum() for shown in (ringed, bare)]
    assert near[0] > 20 > near[1]


@pytest.mark.parametrize("is_log", [False, True])
def test_numbers_stand_where_they_are(is_log: bool):
    dots = [Dot(x, 1.0) for x in (1.0, 10.0, 1000.0)]
    shown = picture(Panel("rate", "loss", dots, is_log=is_log))
    teal = np.array([int(plot.TEAL[at : at + 2], 16) for at in (1, 3, 5)])
    columns = np.flatnonzero((np.abs(shown - teal).sum(axis=2) < 30).any(axis=0))
    first, *_, last = columns
    middle = columns[(columns > first + 20) & (columns < last - 20)]
    assert (len(middle) > 0) == is_log  # else the first two are nearly at one place
