"""Learning-rate multiples: which parameters get which, and what is refused."""

import pytest
import torch

from infra.errors import UserError
from models.tokenizer import CVQConfig, TokenizerConfig
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.training.config import OptimizerConfig
from ray_jobs.training.optimizer import adamw, parameter_groups

TASK = TokenizerTask(
    TokenizerConfig(channels=8, channel_multipliers=(1, 1, 1, 1), res_blocks=(0, 0, 0, 0),
                    middle_blocks=0, groups=4, codebook=CVQConfig(size=4, dim=2))
)  # fmt: skip


def test_every_parameter_is_in_one_group_and_the_first_match_counts() -> None:
    model = TASK.build()
    groups = parameter_groups(model, {"*.codebook": 10.0, "quantizer.*": 3.0, "*.bias": 2.0})
    held = {id(p): group["multiple"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        expected = 10.0 if name == "quantizer.codebook" else 2.0 if name.endswith(".bias") else 1.0
        assert held[id(parameter)] == expected, name


def test_a_frozen_parameter_is_left_out() -> None:
    model = TASK.build()
    model.quantizer.codebook.requires_grad_(False)
    (group,) = adamw(model, OptimizerConfig(), 1e-3).param_groups
    assert all(p is not model.quantizer.codebook for p in group["params"])


def test_a_pattern_without_a_parameter_is_refused() -> None:
    with torch.device("meta"):
        model = TASK.build()
    with pytest.raises(UserError, match=r"codebok matches no parameter"):
        parameter_groups(model, {"*.codebok": 10.0})
