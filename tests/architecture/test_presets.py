"""Every preset loads, and the paper's says what the paper says."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from infra import config, storage
from infra.errors import UserError
from models.autoregressive.loong.config import LOONG_3B, LOONG_7B, LOONG_700M, ARConfig
from models.autoregressive.loong.loss import token_nll
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import SPECIALS_PER_SEQUENCE, build_batch
from models.tokenizer.model import VideoTokenizer
from pipelines import loong
from pipelines.recipe import PRESETS
from ray_jobs.frames import FramesConfig
from ray_jobs.tokenize import TokenizeConfig
from ray_jobs.train_autoregressive import TrainAutoregressiveConfig
from ray_jobs.train_tokenizer import TrainTokenizerConfig
from ray_jobs.training.config import StageConfig
from ray_jobs.upscale import UpscaleConfig

GIVEN = ["input=/videos", "output=/out"]


@pytest.mark.parametrize("preset", sorted((PRESETS / "loong").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_and_validates(preset: Path):
    loaded = config.load(loong.LoongConfig, [preset], GIVEN)
    steps = loong.steps(loaded)
    names = [name for name in loong.STEPS if "upscale" not in name or loaded.upscale is not None]
    assert [step.name for step in steps] == names
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
    ("preset", "shape", "billions"),
    [
        ("paper-7b", LOONG_7B, 6.81),
        ("paper-3b", LOONG_3B, 3.25),
        ("paper-3b-half", LOONG_3B, 3.25),
        ("paper-700m", LOONG_700M, 0.82),
    ],
)
def test_the_papers_models_have_their_sizes(preset: str, shape: ARConfig, billions: float):
    assert trained(preset).model == shape
    assert (shape.head_dim == 128) == (preset != "paper-700m")
    with torch.device("meta"):
        model = LongtakeLlama(trained(preset).model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == billions


@pytest.mark.parametrize("preset", ["paper-7b", "paper-3b", "paper-3b-half", "paper-700m"])
def test_the_paper_presets_state_the_paper(preset: str):
    found = trained(preset)
    assert found.model.vocabulary.total == 40_202
    whole = 2 if preset == "paper-3b-half" else 1  # section 4.2: half the iterations
    assert [whole * stage.steps for stage in found.stages] == [200_000, 200_000, 100_000]
    assert [stage.batch_size for stage in found.stages] == [512, 512, 256]
    assert found.stages[-1].early_frame_weight == 1.0


def test_half_the_iterations_are_all_that_the_half_preset_changes():
    whole, half = (config.as_tree(trained(f"paper-3b{name}")) for name in ("", "-half"))
    for stage in half["stages"]:
        stage["steps"] *= 2
    assert half == whole


def test_a_minute_is_the_papers_count_of_tokens():
    file = PRESETS / "loong" / "paper-7b.yaml"
    steps = {s.name: s.config for s in loong.steps(config.load(loong.LoongConfig, [file], GIVEN))}
    tokenizer, tokens, frames = (steps[name] for name in ("tokenizer", "tokens", "frames"))
    assert isinstance(tokenizer, TrainTokenizerConfig)
    assert isinstance(tokens, TokenizeConfig)
    assert isinstance(frames, FramesConfig)
    longest = max(window.frames for window in tokens.windows)
    in_a_clip = math.prod(tokenizer.model.latent_shape(longest))
    assert in_a_clip == 17 * 16 * 16
    assert in_a_clip + SPECIALS_PER_SEQUENCE == 4_356  # section 3.2
    assert 60 * frames.fps / longest * in_a_clip == 26_112  # section 3.3
    early = math.prod(tokenizer.model.latent_shape(trained("paper-7b").early_frames))
    assert early == 1_280


BF16, TF32 = (0.4 * peak * 1e12 * 3600 for peak in (312, 156))
"""Operations an hour of an A100 at 40 % of its peaks; the tokenizer's convolutions are in TF32."""


def test_the_small_preset_is_counted_to_train_in_a_day_on_one_gpu():
    file = PRESETS / "loong" / "small-gpu.yaml"
    steps = {s.name: s.config for s in loong.steps(config.load(loong.LoongConfig, [file], GIVEN))}
    shape = trained("small-gpu").model
    tokenizer = steps["tokenizer"]
    assert isinstance(tokenizer, TrainTokenizerConfig)
    with torch.device("meta"):
        llama, coder = LongtakeLlama(shape), VideoTokenizer(tokenizer.model)

    def sequence(frames: int) -> None:
        codes_BTHW = torch.zeros(1, *tokenizer.model.latent_shape(frames), dtype=torch.long)
        text = [[0] * shape.max_text_tokens]
        token_nll(llama, build_batch(shape, text, codes_BTHW).to("meta"))

    def clip(frames: int) -> None:
        coder.decoder(coder.encoder(torch.zeros(1, 3, frames, 128, 128, device="meta")))

    hours = [
        *(_hours(stage, sequence, BF16) for stage in trained("small-gpu").stages),
        *(_hours(stage, clip, TF32) for stage in tokenizer.stages),
    ]
    assert [round(h, 1) for h in hours] == [4.9, 7.2, 5.7, 0.7, 3.1, 1.2]  # as pipelines/README.md
    assert all(config.resources.workers == 1 for config in (trained("small-gpu"), tokenizer))
    sizes = [sum(p.numel() for p in m.parameters()) for m in (llama, coder)]
    assert [round(size / 1e6) for size in sizes] == [288, 47]


def _hours(stage: StageConfig, forward: Callable[[int], None], an_hour: float) -> float:
    """Return how long a stage takes: forward once, backward twice as much."""
    operations = 0.0
    for mix in stage.data:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            forward(mix.frames)
        operations += mix.weight * counter.get_total_flops()
    mean = operations / sum(mix.weight for mix in stage.data)
    return 3 * stage.steps * stage.batch_size * mean / an_hour


@pytest.mark.parametrize(
    ("preset", "size_px"),
    [("paper-7b", 512), ("paper-3b", 128), ("paper-3b-half", 128), ("paper-700m", 128)],
)
def test_the_report_is_of_enlarged_videos_where_there_are_any(preset: str, size_px: int):
    file = PRESETS / "loong" / f"{preset}.yaml"
    for given, on in (([], size_px == 512), (["upscale={}"], True), (["upscale=null"], False)):
        loaded = config.load(loong.LoongConfig, [file], [*GIVEN, *given])
        steps = {step.name: step.config for step in loong.steps(loaded)}
        assert ("upscale" in steps) == on
        assert "/out/autoregressive" in steps["report"].input
        shown, film = (
            ("/out/upscale", "/out/held_out_upscale") if on else ("/out/generate", "/out/held_out")
        )
        assert steps["measures"].input == (shown,)
        assert steps["held_out_measures"].input == (film,)  # of the same size
        assert steps["report"].input[-3:] == (shown, "/out/measures", "/out/held_out_measures")
        if on:
            enlarged = steps["upscale"]
            assert isinstance(enlarged, UpscaleConfig)
            assert enlarged.input == ("/out/generate",)
            assert loaded.frames["sizes"][0]["height_px"] * enlarged.scale == 512


def test_what_a_late_step_lacks_stops_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    given = [f"input={tmp_path}", f"output={tmp_path}/out", "upscale={upscaler: realesrgan}"]
    demo = PRESETS / "loong" / "demo.yaml"
    loaded = config.load(loong.LoongConfig, [demo], given)
    with pytest.raises(UserError, match="realesrgan: needs a package that is not installed"):
        loong.refuse(loaded)
    for name in ("upscale", "held_out_upscale"):
        storage.write_text(str(tmp_path / "out" / name / "artifact.json"), "{}")
    loong.refuse(loaded)  # what is finished needs nothing


def test_a_mistake_in_a_step_names_the_step():
    preset = PRESETS / "loong" / "demo.yaml"
    loaded = config.load(loong.LoongConfig, [preset], [*GIVEN, "tokens.windws=3"])
    with pytest.raises(UserError, match=r"tokens: windws: unknown key; did you mean windows\?"):
        loong.steps(loaded)
