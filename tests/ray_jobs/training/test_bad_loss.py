"""Which losses are bad."""

import json
import math
from pathlib import Path

import pytest

from ray_jobs.training import bad_loss
from ray_jobs.training.bad_loss import BadLoss, Skipped, check
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
    train_state, policy = TrainState(), BadLossConfig()
    for loss in (*[1.0] * policy.spike_window, 1e9):
        check(loss, "s", train_state, policy)


def test_steps_are_skipped_up_to_the_most_and_known_to_the_next_attempt(tmp_path: Path):
    policy = BadLossConfig(policy="skip", most_skipped=2)
    skipped = Skipped(str(tmp_path), policy, rank=0)
    assert skipped.add(BadLoss(3, "first"))
    assert skipped.add(BadLoss(7, "second"))
    assert not (tmp_path / "stopped.json").exists()
    assert Skipped(str(tmp_path), policy, rank=1).steps == {3: "first", 7: "second"}
    assert not skipped.add(BadLoss(9, "third"))
    assert skipped.steps == {3: "first", 7: "second"}
    assert json.loads((tmp_path / "stopped.json").read_text()) == {"step": 9, "reason": "third"}


def test_a_policy_to_stop_skips_nothing(tmp_path: Path):
    skipped = Skipped(str(tmp_path), BadLossConfig(), rank=0)
    assert not skipped.add(BadLoss(3, "first"))
    assert skipped.steps == {}
    assert [path.name for path in tmp_path.iterdir()] == ["stopped.json"]


def test_the_first_rank_alone_writes(tmp_path: Path):
    skipped = Skipped(str(tmp_path), BadLossConfig(policy="skip", most_skipped=1), rank=1)
    assert skipped.add(BadLoss(3, "first"))
    assert not skipped.add(BadLoss(4, "second"))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_of_exactly_the_ratio_is_no_spike():
    train_state, policy = TrainState(), BadLossConfig(spike_ratio=2.0, spike_window=2)
    for loss in (1.0, 1.0, 2.0):
        check(loss, "s", train_state, policy)
    assert train_state.losses == [1.0, 2.0]


def test_a_spike_is_a_multiple_of_the_usual_whatever_that_is():
    train_state, policy = (
        TrainState(losses=[0.5, 0.5]),
        BadLossConfig(spike_ratio=3, spike_window=2),
    )
    check(1.4, "s", train_state, policy)
    train_state.losses = [0.5, 0.5]
    with pytest.raises(BadLoss, match=r"is 1.75, 3.5 times the usual 0.5$"):
        check(1.75, "s", train_state, policy)


def test_the_log_says_what_is_done_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.setattr(bad_loss.logger, "warning", lines.append)
    skipped = Skipped(str(tmp_path), BadLossConfig(policy="skip", most_skipped=1), rank=0)
    skipped.add(BadLoss(3, "first"))
    skipped.add(BadLoss(4, "second"))
    assert lines == ["first; going back to pass over it", "second; stopping"]
