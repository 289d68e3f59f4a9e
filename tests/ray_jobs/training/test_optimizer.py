"""Learning-rate multiples: which parameters get which, and what is refused."""

import pytest
import torch
from pydantic import ValidationError

from infra.errors import UserError
from models.losses.config import AdversarialConfig
from models.tokenizer import CVQConfig, TokenizerConfig
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.training.config import OptimizerConfig
from ray_jobs.training.optimizer import adamw, parameter_groups
from tests.ray_jobs.training.runs import ADVERSARIAL

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


def test_the_discriminator_has_betas_of_its_own() -> None:
    model = TokenizerTask(ADVERSARIAL).build()
    optimizer = adamw(
        model, OptimizerConfig(learning_rate_multiples={"discriminator.layers.0.*": 2.0}), 1e-3
    )
    held = {id(p): group["betas"] for group in optimizer.param_groups for p in group["params"]}
    assert len(held) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        of_judge = name.startswith("discriminator.")
        assert held[id(parameter)] == ((0.5, 0.9) if of_judge else (0.9, 0.95)), name
    assert sorted(group["multiple"] for group in optimizer.param_groups) == [1.0, 1.0, 2.0]


def test_without_betas_of_its_own_the_discriminator_is_stepped_like_the_rest() -> None:
    model = TokenizerTask(
        ADVERSARIAL.model_copy(update={"adversarial": AdversarialConfig(channels=8, layers=2)})
    ).build()
    (group,) = adamw(model, OptimizerConfig(), 1e-3).param_groups
    assert group["betas"] == (0.9, 0.95)


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.5, -0.1)])
def test_betas_are_shares(betas: tuple[float, float]) -> None:
    for section in (OptimizerConfig, AdversarialConfig):
        with pytest.raises(ValidationError, match="betas"):
            section(betas=betas)


def test_a_pattern_without_a_parameter_is_refused() -> None:
    with torch.device("meta"):
        model = TASK.build()
    with pytest.raises(UserError, match=r"codebok matches no parameter"):
        parameter_groups(model, {"*.codebok": 10.0})
