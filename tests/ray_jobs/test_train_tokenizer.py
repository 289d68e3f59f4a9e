"""What the job makes of its settings: the plan, the refusals, and an export without a judge."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from data_prep.loader import Mix
from infra import artifact, storage
from infra.artifact import fingerprint
from infra.config import JobConfig
from infra.errors import UserError
from models import exports, weights
from models.losses.config import PerceptualConfig
from models.tokenizer import TokenizerConfig
from models.tokenizer.training import PREFIX, TrainingTokenizer
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.train_tokenizer import TrainTokenizerConfig, plan
from ray_jobs.training.config import DeepSpeedConfig, RunConfig, StageConfig
from ray_jobs.training.initial import InitialConfig
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


def start(folder: Path, **how: str) -> InitialConfig:
    return InitialConfig.model_validate({"from": str(folder), **how})


def judged(uri: str, base: TokenizerConfig = TOKENIZER) -> TokenizerConfig:
    return base.model_copy(update={"perceptual": PerceptualConfig(weights=uri)})


def test_the_plan_says_which_losses_are_on(pixels: str, lpips: str) -> None:
    off = plan(settings(pixels, TOKENIZER))
    assert "perceptual loss: off (model.perceptual.weights is not set)" in off
    assert "discriminator: off (model.adversarial is not set)" in off
    on = plan(settings(pixels, judged(lpips, ADVERSARIAL)))
    assert f"perceptual loss: weight 1, weights of {lpips}" in on
    assert "discriminator: weight 0.3, from pass 1" in on


def test_frames_that_no_clip_has_are_refused_in_the_plan(pixels: str) -> None:
    longer = STAGE.model_copy(update={"name": "b", "data": (Mix(frames=9_001),)})
    asked = settings(pixels, TOKENIZER).model_copy(update={"stages": (STAGE, longer)})
    with pytest.raises(UserError, match="9001") as caught:
        plan(asked)
    assert "\n" not in str(caught.value)


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
    task.load(other, start(tmp_path / "judged"))
    for key, value in other.state_dict().items():
        expected = before if key.startswith(PREFIX) else plain
        assert torch.equal(value, expected[key]), key
    with torch.device("meta"):
        unbuilt = task.build()
    task.load(unbuilt, start(tmp_path / "judged"))


def test_an_image_tokenizer_is_inflated(pixels: str, tmp_path: Path) -> None:
    image = TOKENIZER.model_copy(update={"temporal_kernels": (1, 1, 1, 1)})
    torch.manual_seed(0)
    source = TokenizerTask(image).build()
    TokenizerTask(image).export(source.state_dict(), str(tmp_path))
    here = start(tmp_path, how="inflate")
    assert f"start from {tmp_path} (inflate)" in plan(settings(pixels, ADVERSARIAL, initial=here))
    task = TokenizerTask(ADVERSARIAL)
    model = task.build()
    task.load(model, here)
    x = torch.rand(1, 3, 1, 16, 16)
    torch.testing.assert_close(model.encoder(x), source.encoder(x))

    wider = TOKENIZER.model_copy(update={"channels": 16})
    with pytest.raises(UserError, match=r"initial.from: .* does not inflate: channels is 8 there"):
        plan(settings(pixels, wider, initial=here))
    with pytest.raises(UserError, match=r"initial.how: base; this model has no frozen base"):
        plan(settings(pixels, TOKENIZER, initial=start(tmp_path, how="base")))
    with pytest.raises(ValidationError, match=r"trained_on is of how: inflate only; how is same"):
        start(tmp_path, trained_on="videos")


def begun_with(frames: int) -> StageConfig:
    return STAGE.model_copy(update={"name": f"of_{frames}", "data": (Mix(frames=frames),)})


@pytest.mark.parametrize(
    ("before", "how", "inflates"),
    [
        ((1,), None, True),
        ((1, 1), None, True),
        ((1,), {"how": "inflate"}, True),
        ((1,), {"how": "inflate", "trained_on": "videos"}, False),
        ((1,), {"how": "same"}, False),  # they may have seen videos: the plan refuses what has not
        ((5,), None, False),
        ((5, 1), None, False),
    ],
)
def test_videos_begin_with_inflated_weights_where_there_were_images_alone(
    before: tuple[int, ...], how: dict[str, str] | None, inflates: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = TokenizerTask(ADVERSARIAL)
    state = task.build().state_dict()
    initial = None if how is None else start(tmp_path, **how)
    stages = [begun_with(frames) for frames in before]
    images = task.inherit(state, stages, begun_with(1), initial)
    assert all(torch.equal(images[key], state[key]) for key in state)
    videos = task.inherit(state, stages, begun_with(5), initial)
    moved = {key for key in state if not torch.equal(videos[key], state[key])}
    assert bool(moved) == inflates
    assert not any(key.startswith(PREFIX) for key in moved)


def test_plain_copies_of_a_tokenizer_of_images_are_refused_before_videos(
    pixels: str, tmp_path: Path
) -> None:
    TokenizerTask(TOKENIZER).export(TokenizerTask(TOKENIZER).build().state_dict(), str(tmp_path))
    videos = (STAGE, STAGE.model_copy(update={"name": "b", "data": (Mix(frames=5),)}))

    def planned(stages: tuple[StageConfig, ...], **how: str) -> list[str]:
        given = settings(pixels, TOKENIZER, initial=start(tmp_path, **how))
        return plan(given.model_copy(update={"stages": stages}))

    assert planned(videos, how="same")  # nothing says what it has seen
    for seen, refused in ((1, True), (5, False)):
        storage.write_json(str(tmp_path / "summary.json"), {"trained_frames": seen})
        assert planned((STAGE,), how="same")
        assert planned(videos, how="inflate")
        if not refused:
            assert planned(videos, how="same")
            continue
        with pytest.raises(UserError, match=r"initial.how: same; .* images alone.* inflate"):
            planned(videos, how="same")


def test_initial_weights_count_by_content_wherever_they_lie(pixels: str, tmp_path: Path) -> None:
    marks = {fingerprint("tokenizer", settings(pixels, TOKENIZER))}
    for seed, folder in ((0, "a"), (1, "b")):
        job = JobConfig(input=(pixels,), output=str(tmp_path / folder), seed=seed)
        output = artifact.begin("tokenizer", job)
        TokenizerTask(TOKENIZER).export(TokenizerTask(TOKENIZER).build().state_dict(), output.uri)
        artifact.finish(output, "tokenizer", {}, time.monotonic())
        config = settings(pixels, TOKENIZER, initial=start(tmp_path / folder))
        marks.add(fingerprint("tokenizer", config))
    assert len(marks) == 3
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    moved = settings(pixels, TOKENIZER, initial=start(tmp_path / "moved"))
    assert fingerprint("tokenizer", moved) in marks
