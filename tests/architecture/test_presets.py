"""Every preset loads, and the paper's says what the paper says."""

from pathlib import Path

import pytest
import torch

from infra import config
from models.autoregressive.model import LongtakeLlama
from pipelines import loong
from pipelines.recipe import PRESETS
from ray_jobs.train_autoregressive import TrainAutoregressiveConfig

GIVEN = ["input=/videos", "output=/out"]


@pytest.mark.parametrize("preset", sorted((PRESETS / "loong").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_and_validates(preset: Path):
    steps = loong.steps(config.load(loong.LoongConfig, [preset], GIVEN))
    assert [step.name for step in steps] == list(loong.STEPS)
    made = {step.config.output for step in steps}
    for step in steps[1:]:
        assert set(step.config.input) <= made


def trained(preset: str) -> TrainAutoregressiveConfig:
    file = PRESETS / "loong" / f"{preset}.yaml"
    steps = {s.name: s for s in loong.steps(config.load(loong.LoongConfig, [file], GIVEN))}
    found = steps["autoregressive"].config
    assert isinstance(found, TrainAutoregressiveConfig)
    return found


@pytest.mark.parametrize(
    ("preset", "billions"),
    [("paper", 6.81), ("paper-7b", 6.81), ("paper-3b", 3.23), ("paper-700m", 0.82)],
)
def test_the_papers_models_have_their_sizes(preset: str, billions: float):
    with torch.device("meta"):
        model = LongtakeLlama(trained(preset).model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == billions


@pytest.mark.parametrize("preset", ["paper", "paper-7b", "paper-3b", "paper-700m"])
def test_the_paper_presets_state_the_paper(preset: str):
    found = trained(preset)
    assert found.model.vocabulary.total == 40_202
    assert [stage.steps for stage in found.stages] == [200_000, 200_000, 100_000]
    assert [stage.batch_size for stage in found.stages] == [512, 512, 256]
    assert found.stages[-1].early_frame_weight == 1.0


def test_a_mistake_in_a_step_names_the_step():
    from infra.errors import UserError

    preset = PRESETS / "loong" / "demo.yaml"
    loaded = config.load(loong.LoongConfig, [preset], [*GIVEN, "tokens.windws=3"])
    with pytest.raises(UserError, match=r"tokens: windws: unknown key; did you mean windows\?"):
        loong.steps(loaded)
