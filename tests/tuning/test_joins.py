"""Sweeps of how film is continued over a join: strategies on the same film, held to predictions."""

from pathlib import Path

import pytest

from infra import artifact, config
from infra.artifact import begin
from infra.errors import UserError
from tests.ray_jobs.test_continuation import write_inputs
from tuning import joins
from tuning.joins import JoinsConfig

PREDICTED = {
    "says": "kept tokens are others",
    "figure": "token_disagreement",
    "lower": "reencoded",
    "than": "naive",
}


def settings(folder: Path, **keys: object) -> JoinsConfig:
    tree = {
        "input": write_inputs(folder),
        "output": str(folder / "out"),
        "job": {"window_frames": 9, "reencode_frames": 5, "films": 8},
        "arms": {"reencoded": {"strategy": "re-encode"}, "naive": {"strategy": "naive"}},
        "predictions": [PREDICTED],
        **keys,
    }
    return config.build(JoinsConfig, tree)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_strategies_are_held_against_a_prediction(ray_session: None, tmp_path: Path):
    config_ = settings(tmp_path)
    joins.plan(config_)
    summary = joins.run(config_, begin("sweep", config_))
    (outcome,) = summary["predictions"]
    assert (outcome["held"], outcome["seeds"]) == (1, 1)
    for trial in (tmp_path / "out" / "trials").iterdir():
        assert artifact.read(str(trial), ("continuation",)).counts["films"] == 8


def test_what_no_trial_can_be_is_refused_before_ray(tmp_path: Path):
    for number, (keys, words) in enumerate(
        (
            (
                {"objective": "loss"},
                "objective: loss is reported by no trial; allowed are token_dis",
            ),
            ({"arms": {"naive": {"strategy": "none"}}, "predictions": []}, "strategy"),
        )
    ):
        with pytest.raises(UserError, match=words):
            joins.plan(settings(tmp_path / str(number), **keys))
