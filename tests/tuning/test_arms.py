"""Arms and seeds: variants of a job by name, each tried with every seed."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from infra import config
from infra.artifact import begin
from infra.errors import UserError
from tests.tuning.test_sweep import Curve, settings, trials_of
from tuning import report, sweep
from tuning.config import points_of
from tuning.plot import spread

ARMS = {"near": {"x": 1.5}, "far": {"x": 4.0, "y": 1}}
PREDICTED = [{"says": "nearer is lower", "figure": "height", "lower": "near", "than": "far"}]


def test_every_arm_is_tried_with_every_seed_one_seed_after_the_other(tmp_path: Path):
    config_ = settings(tmp_path / "out", space={}, arms=ARMS, seeds=[0, 7])
    points = points_of(config_)
    assert points is not None
    assert points == [{"arm": arm, "seed": seed} for seed in (0, 7) for arm in ARMS]
    job = trials_of(config_).job
    built = [sweep.build(config_, job, point) for point in points]
    assert [(curve.x, curve.y, curve.seed) for curve in built] == [
        (1.5, 0, 0), (4.0, 1, 0), (1.5, 0, 7), (4.0, 1, 7)
    ]  # fmt: skip
    plan = sweep.plan(config_, trials_of(config_))
    assert plan[0].startswith("4 trials")
    assert "each with the seeds 0, 7" in plan


def test_a_space_is_tried_with_every_seed_too(tmp_path: Path):
    points = points_of(settings(tmp_path / "out", space={"x": {"grid": [1, 2]}}, seeds=[3, 4]))
    assert points == [{"x": x, "seed": seed} for seed in (3, 4) for x in (1, 2)]


@pytest.mark.ray
def test_arms_are_held_against_predictions_seed_by_seed(ray_session, tmp_path: Path):
    config_ = settings(
        tmp_path / "out", space={}, arms=ARMS, seeds=[0, 7], predictions=PREDICTED, trials_at_once=2
    )
    trials = trials_of(config_)
    sweep.plan(config_, trials)
    summary = sweep.run(config_, begin("sweep", config_), trials)
    (outcome,) = summary["predictions"]
    assert outcome["differences"] == {"0": 9.75, "7": 9.75}
    assert (outcome["held"], outcome["seeds"]) == (2, 2)
    assert summary["best"] == {
        "trials": ["near-seed_0", "near-seed_7"], "arm": "near", "height": 0.25
    }  # fmt: skip
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert {(row["arm"], row["seed"]) for row in rows} == {(a, s) for a in ARMS for s in (0, 7)}
    assert {file.parent.name for file in tmp_path.glob("out/trials/*/calls")} == {
        row["trial"] for row in rows
    }
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert config.build(Curve, {**best, "output": "/unused"}).x == 1.5
    assert Image.open(tmp_path / "out" / "response.png").format == "PNG"


def test_a_panel_a_figure_with_the_spread_between_seeds(tmp_path: Path):
    config_ = settings(tmp_path / "out", space={}, arms=ARMS, seeds=[0, 1], predictions=PREDICTED)
    rows = [
        {
            "name": f"{arm}-seed_{seed}",
            "point": {"arm": arm, "seed": seed},
            "state": "finished",
            "objective": place + seed,
            "figures": {"height": place + seed},
        }
        for place, arm in enumerate(ARMS)
        for seed in (0, 1)
    ]
    (panel,) = report.panels(config_, rows, {"near-seed_0", "near-seed_1"})
    assert (panel.y_label, panel.labels) == ("height", ["near", "far"])
    assert spread(panel.dots) == [(0, 0, 0.5, 1), (1, 1, 1.5, 2)]
    assert [dot.x for dot in panel.dots if dot.best] == [0, 0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"arms": ARMS}, "arms and space are stated; give one of them"),
        ({"space": {}, "arms": ARMS, "search": "random"}, "search=random with arms"),
        ({"predictions": PREDICTED}, "predictions are of arms; there are none"),
        ({"seeds": [1, 1]}, "one of them is there twice"),
        ({"seeds": [1], "search": "optuna"}, "seeds with search=optuna"),
        ({"space": {}, "arms": {"a": {"seed": 3}}}, r"arms\.a\.seed: is the sweep's own"),
        ({"job": {"resources.workers": 3}}, r"job\.resources\.workers: is the sweep's own"),
        ({"space": {}, "arms": {"a/b": {}}}, "arms"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, keys: dict, message: str):
    with pytest.raises(UserError, match=message) as caught:
        settings(tmp_path / "out", **keys)
    assert "\n" not in str(caught.value)


def test_an_arm_that_cannot_be_is_refused_before_any_trial(tmp_path: Path):
    config_ = settings(tmp_path / "out", space={}, arms={"a": {"z": 1}})
    with pytest.raises(UserError, match=r"arms: arm=a: z: unknown key"):
        sweep.plan(config_, trials_of(config_))
