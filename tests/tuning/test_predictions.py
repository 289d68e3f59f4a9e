"""Predictions beside what was found."""

import pytest

from infra.errors import UserError
from tuning import predictions
from tuning.predictions import Prediction

FIGURES = {
    "weighted": {0: {"loss": 1.0}, 1: {"loss": 3.0}, 2: {"loss": 2.0}},
    "plain": {0: {"loss": 2.0}, 1: {"loss": 2.5}, 2: {"loss": 4.0}},
}
PREDICTION = Prediction(says="it helps", figure="loss", lower="weighted", than="plain")


def test_an_outcome_counts_the_seeds_that_bear_a_prediction_out():
    (outcome,) = predictions.outcomes([PREDICTION], FIGURES, [0, 1, 2])
    assert outcome["differences"] == {"0": 1.0, "1": -0.5, "2": 2.0}
    assert (outcome["held"], outcome["seeds"]) == (2, 3)
    assert outcome["mean"] == pytest.approx(2.5 / 3)
    (line,) = predictions.lines([outcome])
    assert line.startswith("2 of 3 seeds: it helps (loss of plain less")


def test_a_trial_that_failed_or_lacks_the_figure_counts_for_nothing():
    found = {"weighted": {0: {"loss": 1.0}, 1: {}}, "plain": {0: {"loss": 2.0}, 1: {"loss": 9.0}}}
    (outcome,) = predictions.outcomes([PREDICTION], found, [0, 1, 2])
    assert outcome["differences"] == {"0": 1.0, "1": None, "2": None}
    assert (outcome["held"], outcome["seeds"], outcome["mean"]) == (1, 3, 1.0)
    (outcome,) = predictions.outcomes([PREDICTION], {}, [0])
    assert (outcome["held"], outcome["mean"]) == (0, None)
    assert "no figure" in predictions.lines([outcome])[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lower": "x"}, r"predictions.0.lower: no arm x; there are weighted, plain"),
        ({"than": "x"}, r"predictions.0.than: no arm x"),
        ({"figure": "x"}, r"predictions.0.figure: x is reported by no trial; allowed are loss"),
    ],
)
def test_a_prediction_of_what_is_not_there_is_refused(changed: dict[str, str], message: str):
    predictions.check([PREDICTION], tuple(FIGURES), ("loss",))
    with pytest.raises(UserError, match=message):
        predictions.check([PREDICTION.model_copy(update=changed)], tuple(FIGURES), ("loss",))
