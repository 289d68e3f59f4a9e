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


def test_the_paper_preset_states_the_paper():
    preset = PRESETS / "loong" / "paper.yaml"
    steps = {s.name: s for s in loong.steps(config.load(loong.LoongConfig, [preset], GIVEN))}
    trained = steps["autoregressive"].config
    assert isinstance(trained, TrainAutoregressiveConfig)
    with torch.device("meta"):
        model = LongtakeLlama(trained.model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == 6.81
    assert trained.model.vocabulary.total == 40_202
    assert [stage.steps for stage in trained.stages] == [200_000, 200_000, 100_000]
    assert [stage.batch_size for stage in trained.stages] == [512, 512, 256]
    assert trained.stages[-1].early_frame_weight == 1.0


def test_a_mistake_in_a_step_names_the_step():
    from infra.errors import UserError

    preset = PRESETS / "loong" / "demo.yaml"
    loaded = config.load(loong.LoongConfig, [preset], [*GIVEN, "tokens.windws=3"])
    with pytest.raises(UserError, match=r"tokens: windws: unknown key; did you mean windows\?"):
        loong.steps(loaded)
