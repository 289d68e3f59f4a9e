"""What the job makes of its settings: the plan, the refusals, and an export without a judge."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.loader import Mix
from infra.errors import UserError
from models import exports, weights
from models.losses.config import PerceptualConfig
from models.tokenizer import TokenizerConfig
from models.tokenizer.training import PREFIX, TrainingTokenizer
from ray_jobs.train_tokenizer import TokenizerTask, TrainTokenizerConfig, plan
from ray_jobs.training.config import DeepSpeedConfig, RunConfig, StageConfig
from tests.models.losses.test_lpips import random_weights
from tests.ray_jobs.training.runs import ADVERSARIAL, TOKENIZER, write_data

STAGE = StageConfig(name="a", steps=1, batch_size=2, data=(Mix(frames=1),))


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"))["frames"]


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("lpips") / "vgg.safetensors"
    save_file(random_weights(), file)
    return str(file)


def settings(pixels: str, model: TokenizerConfig, **changes: Any) -> TrainTokenizerConfig:
    return TrainTokenizerConfig(
        input=(pixels,), output="/out", model=model, stages=(STAGE,), **changes
    )


def judged(uri: str, base: TokenizerConfig = TOKENIZER) -> TokenizerConfig:
    return base.model_copy(update={"perceptual": PerceptualConfig(weights=uri)})


def test_the_plan_says_which_losses_are_on(pixels: str, lpips: str) -> None:
    off = plan(settings(pixels, TOKENIZER))
    assert "perceptual loss: off (model.perceptual.weights is not set)" in off
    assert "discriminator: off (model.adversarial is not set)" in off
    on = plan(settings(pixels, judged(lpips, ADVERSARIAL)))
    assert f"perceptual loss: weight 1, weights of {lpips}" in on
    assert "discriminator: weight 0.3, from pass 1" in on


def test_a_discriminator_under_zero_3_is_refused(pixels: str) -> None:
    run = RunConfig(deepspeed=DeepSpeedConfig(zero_stage=3))
    with pytest.raises(UserError, match=r"zero_stage: 3; with model.adversarial allowed are 0, 1"):
        plan(settings(pixels, ADVERSARIAL, run=run))
    plan(settings(pixels, TOKENIZER, run=run))


def test_weights_of_lpips_that_do_not_fit_are_refused(
    pixels: str, lpips: str, tmp_path: Path
) -> None:
    state = load_file(lpips)
    state["classifier.0.weight"] = state.pop("features.0.weight")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"missing features.0.weight; unexpected classifier"):
        plan(settings(pixels, judged(str(tmp_path / "other.safetensors"))))
    with pytest.raises(UserError, match="nowhere: not found"):
        plan(settings(pixels, judged(str(tmp_path / "nowhere"))))


def test_lpips_is_filled_and_counts(lpips: str) -> None:
    model = TokenizerTask(judged(lpips)).build()
    assert isinstance(model, TrainingTokenizer)
    out = model(torch.rand(1, 3, 1, 16, 16))
    assert out.losses["perceptual"] > 0
    rest = out.losses["l1"] + out.losses["commitment"]
    torch.testing.assert_close(out.loss, rest + out.losses["perceptual"])
    assert not any("perceptual" in name for name in model.state_dict())


def test_rates_of_the_discriminator_go_by_its_name(pixels: str) -> None:
    run = RunConfig.model_validate(
        {"optimizer": {"learning_rate_multiples": {"discriminator.*": 0.5}}}
    )
    plan(settings(pixels, ADVERSARIAL, run=run))
    with pytest.raises(UserError, match=r"discriminator.\* matches no parameter"):
        plan(settings(pixels, TOKENIZER, run=run))


def test_an_export_is_that_of_a_plain_tokenizer(lpips: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = TokenizerTask(judged(lpips, ADVERSARIAL))
    model = task.build()
    task.export(model.state_dict(), str(tmp_path / "judged"))
    plain = {k: v for k, v in model.state_dict().items() if not k.startswith(PREFIX)}
    TokenizerTask(TOKENIZER).export(plain, str(tmp_path / "plain"))
    for file in (weights.WEIGHTS_FILE, exports.CONFIG_FILE):
        assert (tmp_path / "judged" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()

    torch.manual_seed(1)
    other = task.build()
    before = {key: value.clone() for key, value in other.state_dict().items()}
    task.load(other, str(tmp_path / "judged"))
    for key, value in other.state_dict().items():
        expected = before if key.startswith(PREFIX) else plain
        assert torch.equal(value, expected[key]), key
    with torch.device("meta"):
        unbuilt = task.build()
    task.load(unbuilt, str(tmp_path / "judged"))


def test_an_image_tokenizer_is_inflated(pixels: str, tmp_path: Path) -> None:
    image = TOKENIZER.model_copy(update={"temporal_kernels": (1, 1, 1, 1)})
    torch.manual_seed(0)
    source = TokenizerTask(image).build()
    TokenizerTask(image).export(source.state_dict(), str(tmp_path))
    here = {"inflate_from": str(tmp_path)}
    plan(settings(pixels, ADVERSARIAL, **here))
    task = TokenizerTask(ADVERSARIAL, inflate="images")
    model = task.build()
    task.load(model, str(tmp_path))
    x = torch.rand(1, 3, 1, 16, 16)
    torch.testing.assert_close(model.encoder(x), source.encoder(x))

    wider = TOKENIZER.model_copy(update={"channels": 16})
    with pytest.raises(UserError, match=r"inflate_from: .* channels is 8 there and 16 here"):
        plan(settings(pixels, wider, **here))
    with pytest.raises(UserError, match=r"run.initial is .*: allowed is one of them"):
        plan(settings(pixels, TOKENIZER, run=RunConfig(initial=str(tmp_path)), **here))
