"""Ablations: predictions beside what was found."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from infra import config, storage
from infra.errors import UserError
from pipelines import ablation, loong_ablation
from pipelines.ablation import Prediction
from pipelines.loong_ablation import LoongAblationConfig
from pipelines.recipe import PRESETS

DEMO = PRESETS / "loong_ablation" / "demo.yaml"
FIGURES = {
    "weighted": {0: {"loss": 1.0}, 1: {"loss": 3.0}, 2: {"loss": 2.0}},
    "plain": {0: {"loss": 2.0}, 1: {"loss": 2.5}, 2: {"loss": 4.0}},
}
PREDICTION = Prediction(says="it helps", figure="loss", lower="weighted", than="plain")


def test_an_outcome_counts_the_seeds_that_bear_a_prediction_out():
    (outcome,) = ablation.outcomes([PREDICTION], FIGURES)
    assert outcome["differences"] == {"0": 1.0, "1": -0.5, "2": 2.0}
    assert (outcome["held"], outcome["seeds"]) == (2, 3)
    assert outcome["mean"] == pytest.approx(2.5 / 3)
    assert ablation.lines([outcome])[0].startswith("2 of 3 seeds: it helps (loss of plain less")


def test_a_figure_that_an_arm_lacks_holds_nowhere():
    (outcome,) = ablation.outcomes([PREDICTION], {**FIGURES, "plain": {0: {}, 1: {}, 2: {}}})
    assert (outcome["held"], outcome["mean"]) == (0, None)
    assert "no figure" in ablation.lines([outcome])[0]


def test_the_picture_has_a_panel_a_figure():
    outcome = ablation.outcomes([PREDICTION], FIGURES)
    picture = Image.open(io.BytesIO(ablation.picture(outcome, FIGURES)))
    assert picture.format == "PNG"
    assert picture.width > 300


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lower": "x"}, r"predictions.0.lower: no arm x; there are weighted, plain"),
        ({"figure": "x"}, r"predictions.0.figure: x is no figure of weighted; allowed are loss"),
    ],
)
def test_a_prediction_of_what_is_not_there_is_refused(changed: dict[str, str], said: str):
    arms = dict.fromkeys(FIGURES, ("loss",))
    with pytest.raises(UserError, match=said):
        ablation.check([PREDICTION.model_copy(update=changed)], arms)


@pytest.fixture
def run(tmp_path: Path) -> str:
    """The configs of a finished run of the demo, which is all that steps are made from."""
    tree = config.read_yaml(str(PRESETS / "loong" / "demo.yaml"))
    for name in ("autoregressive", "generate"):
        filled = {**tree[name], "input": ["unused"], "output": "unused", "seed": 0}
        storage.write_text(str(tmp_path / name / "config.yaml"), config.yaml.safe_dump(filled))
    return str(tmp_path)


def settings(run: str, **keys: Any) -> LoongAblationConfig:
    tree = config.read_yaml(str(DEMO))
    return config.build(LoongAblationConfig, {**tree, "input": run, **keys})


def test_the_demos_arms_are_the_runs_own_jobs_with_some_keys_changed(run: str):
    steps = {item.name: item.config for item in loong_ablation.steps(settings(run))}
    assert len(steps) == 3 * (4 + 4)
    weights = [
        steps[f"{arm} seed 2"].stages[-1].early_frame_weight  # type: ignore[attr-defined]
        for arm in ("lambda_0", "lambda_1", "lambda_4", "long_only")
    ]
    assert weights == [0.0, 1.0, 4.0, 1.0]
    assert {step.seed for name, step in steps.items() if name.endswith("seed 1")} == {1}
    naive: Any = steps["naive seed 0"]
    assert naive.extension.strategy == "naive"
    assert naive.input[1].endswith("/outputs/demo_ablation/lambda_1/seed_0")


def test_the_demos_arms_see_as_many_tokens(run: str):
    """Within 2 %: 64 codes a latent frame at 64 px, lengths in proportion to their weights."""
    latents = {1: 1, 17: 5, 65: 17}
    tokens = {}
    for item in loong_ablation.steps(settings(run, seeds=[0])):
        if item.job.name == "train_autoregressive":
            stages: Any = item.config.stages  # type: ignore[attr-defined]
            tokens[item.name] = sum(
                64 * stage.steps * stage.batch_size
                * sum(latents[mix.frames] * mix.weight for mix in stage.data)
                / sum(mix.weight for mix in stage.data)
                for stage in stages
            )  # fmt: skip
    assert max(tokens.values()) / min(tokens.values()) < 1.02


def test_a_run_that_is_not_there_or_not_finished_is_refused(run: str, tmp_path: Path):
    with pytest.raises(UserError, match=r"no autoregressive there; give a run of pipelines\.loong"):
        loong_ablation.steps(settings(str(tmp_path / "none")))
    with pytest.raises(UserError, match="tokenizer: "):
        loong_ablation.check_input(settings(run))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"generation": {"of": "x", "arms": {"k": {}}}}, "generation.of: no training arm x"),
        (
            {"generation": {"of": "lambda_1", "arms": {"lambda_0": {}}}},
            "arm lambda_0: of training and of generation",
        ),
        ({"training": {"arms": {"lambda_1": {"stages.none.steps": 1}}}}, "stages.none.steps: "),
        ({"training": {"arms": {"lambda_1": {"early": 1}}}, "predictions": []}, "early: unknown"),
    ],
)
def test_arms_that_cannot_be_are_refused(run: str, keys: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        loong_ablation.steps(settings(run, **{"predictions": [], **keys}))
