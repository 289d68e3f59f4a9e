"""Which losses are bad."""

import math

import pytest

from ray_jobs.training.bad_loss import BadLoss, check
from ray_jobs.training.checkpoints import TrainState
from ray_jobs.training.config import BadLossConfig


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_bad(loss: float):
    train_state = TrainState(step=41)
    with pytest.raises(BadLoss, match=r"the loss of step 42 \(stage s\) is not finite") as caught:
        check(loss, "s", train_state, BadLossConfig())
    assert caught.value.step == 41
    assert train_state.losses == []


def test_a_spike_is_measured_against_the_median_of_a_full_window():
    train_state, policy = TrainState(), BadLossConfig(spike_ratio=2.0, spike_window=5)
    for loss in (1.0, 100.0, 1.0, 1.0, 1.0):  # the window is not full yet: nothing is a spike
        check(loss, "s", train_state, policy)
    check(1.9, "s", train_state, policy)
    with pytest.raises(BadLoss, match=r"is 2.1, 2.1 times the usual 1$"):
        check(2.1, "s", train_state, policy)
    assert train_state.losses == [100.0, 1.0, 1.0, 1.0, 1.9], "a bad loss is no part of the usual"


def test_without_a_ratio_no_finite_loss_is_bad():
    train_state, policy = TrainState(), BadLossConfig(spike_window=2)
    for loss in (1.0, 1.0, 1e9):
        check(loss, "s", train_state, policy)
