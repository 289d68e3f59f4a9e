"""The learning rate over a stage's steps."""

from typing import Any

import pytest

from data_prep.loader import Mix
from ray_jobs.training.config import StageConfig


def stage(**changes: Any) -> StageConfig:
    fields: dict[str, Any] = {"steps": 110, "learning_rate": 2.0, **changes}
    return StageConfig(name="a", batch_size=1, data=(Mix(frames=1),), **fields)


def test_the_rate_warms_up_in_a_line_to_its_full_height():
    rates = [stage(warmup_steps=10).learning_rate_at(step) for step in range(11)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0


def test_then_it_falls_as_a_cosine_half_way_in_the_middle():
    made = stage(warmup_steps=10)
    rates = [made.learning_rate_at(step) for step in range(10, 110)]
    assert rates == sorted(rates, reverse=True)
    assert rates[50] == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.001
    quarter = 1 + 2**-0.5  # 2 (1 + cos(π / 4)) / 2
    assert rates[25] == pytest.approx(quarter)


def test_it_falls_to_its_floor_and_no_further():
    made = stage(warmup_steps=10, final_learning_rate_ratio=0.25)
    rates = [made.learning_rate_at(step) for step in range(110)]
    assert min(rates[10:]) == pytest.approx(0.5, rel=1e-3)
    assert rates[60] == pytest.approx((2.0 + 0.5) / 2)
    constant = stage(final_learning_rate_ratio=1.0)
    assert {constant.learning_rate_at(step) for step in range(110)} == {2.0}


def test_a_stage_that_only_warms_up_ends_at_its_full_height():
    assert stage(steps=10, warmup_steps=10).learning_rate_at(9) == 2.0
