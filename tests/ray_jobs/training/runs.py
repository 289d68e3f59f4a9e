"""Small runs of four kinds of model, and a way to kill their workers."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from data_prep.loader import Mix
from data_prep.sample import Sample
from infra import artifact
from infra.config import JobConfig, Resources
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.vocabulary import Vocabulary
from models.codec import CausalFrames, CodecSpec, Codes
from models.losses.config import AdversarialConfig
from models.tokenizer import CVQConfig, TokenizerConfig
from ray_jobs.tasks.autoregressive import ARStageConfig, AutoregressiveTask
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.training.config import DeepSpeedConfig, RunConfig, StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.launch import launch
from ray_jobs.training.task import Judgement, State, StepLoss, Task
from tests import shard_artifacts
from tests.shard_artifacts import row, tokens_spec, window

CLIPS, FRAMES, SIZE = 16, 9, 16
CODES = 16


class DiTBlock(nn.Module):
    """Attention and MLP, scaled and shifted by the timestep (adaLN-Zero)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x_BND: Tensor, time_BD: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(time_BD)[
            :, None
        ].chunk(6, dim=-1)
        normed = self.norm(x_BND) * (1 + scale_a) + shift_a
        x_BND = x_BND + gate_a * self.attention(normed, normed, normed, need_weights=False)[0]
        return x_BND + gate_m * self.mlp(self.norm(x_BND) * (1 + scale_m) + shift_m)


class DiT(nn.Module):
    """Velocity of patches of 4 x 4 pixels of every frame."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patch, self.unpatch = nn.Linear(48, width), nn.Linear(width, 48)
        self.time = nn.Linear(1, width)
        self.blocks = nn.ModuleList(DiTBlock(width) for _ in range(2))

    def forward(self, x_BNP: Tensor, time_B: Tensor) -> Tensor:
        time_BD = F.silu(self.time(time_B[:, None].to(x_BNP.dtype)))
        x_BND = self.patch(x_BNP)
        for block in self.blocks:
            x_BND = block(x_BND, time_BD)
        return self.unpatch(x_BND)


class DiTTask:
    """Rectified flow on pixels: what a diffusion model asks of the engine."""

    unit = "frames"
    frozen: tuple[str, ...] = ()

    def build(self) -> DiT:
        return DiT()

    def loss(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> StepLoss:
        clean, noise, times = [], [], []
        for sample in samples:
            draws = torch.Generator().manual_seed(sample.seed)
            x_NP = patches(sample.data)
            clean.append(x_NP)
            noise.append(torch.randn(x_NP.shape, generator=draws))
            times.append(torch.rand((), generator=draws))
        like = next(model.parameters())
        x_BNP, noise_BNP, time_B = (torch.stack(t).to(like.device) for t in (clean, noise, times))
        mixed = torch.lerp(x_BNP, noise_BNP, time_B[:, None, None])
        velocity_BNP = model(mixed.to(like.dtype), time_B)
        loss = F.mse_loss(velocity_BNP.float(), noise_BNP - x_BNP)
        return StepLoss(loss, {"mse": loss.detach()}, sum(len(each.data) for each in samples))

    def validate(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> Judgement:
        return Judgement({"mse": float(self.loss(model, samples, stage).loss)})

    def export(self, state: dict[str, Tensor], folder: str) -> None:
        Path(folder).mkdir(exist_ok=True)
        save_file(state, Path(folder, "model.safetensors"))

    def inherit(
        self,
        state: State,
        before: Sequence[StageConfig],
        stage: StageConfig,
        initial: InitialConfig | None,
    ) -> State:
        return state

    def load(self, model: nn.Module, initial: InitialConfig) -> None:
        raise NotImplementedError


def patches(pixels_THWC: np.ndarray) -> Tensor:
    x = torch.from_numpy(pixels_THWC.astype(np.float32)) / 127.5 - 1
    return x.reshape(-1, SIZE // 4, 4, SIZE // 4, 4, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, 48)


@dataclass
class Dying:
    """A task whose worker of rank `rank` is killed, once, in call `call` of its loss.

    Attributes:
        task: what is trained.
        marker: a file that says that it has happened.
    """

    task: Task
    marker: str
    call: int
    rank: int

    def __getattr__(self, name: str) -> Any:
        if name in ("task", "__setstate__", "__getstate__"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def loss(self, model: Any, samples: list[Sample], stage: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        here = torch.distributed.get_rank() == self.rank
        if self.calls == self.call and here and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.task.loss(model, samples, stage)


@dataclass(frozen=True)
class Kind:
    """A kind of model: its task, its data, its stages."""

    task: Callable[[], Task]
    data: str
    stage: Callable[..., StageConfig]
    micro_batch_size: int | None = None
    low_precision: bool = True
    most_zero: int = 3
    sequences: bool = False
    """Whether ranks can share them out."""
    trainable: tuple[str, ...] = ("*",)


TOKENIZER = TokenizerConfig(
    height_px=SIZE, width_px=SIZE, channels=8, channel_multipliers=(1, 1, 1, 1),
    res_blocks=(0, 0, 1, 1), middle_blocks=0, groups=4, codebook=CVQConfig(size=CODES, dim=4),
)  # fmt: skip
ADVERSARIAL = TOKENIZER.model_copy(
    update={
        "adversarial": AdversarialConfig(
            channels=8, layers=2, start_step=1, lecam_decay=0.5, betas=(0.5, 0.9)
        )
    }
)
CODEC = CodecSpec(time=CausalFrames(stride=4), space_stride=8, latent=Codes(codebook_size=CODES))
KINDS = {
    "tokenizer": Kind(
        lambda: TokenizerTask(TOKENIZER), "frames", StageConfig, low_precision=False
    ),
    "adversarial": Kind(
        lambda: TokenizerTask(ADVERSARIAL), "frames", StageConfig, low_precision=False, most_zero=2
    ),
    "autoregressive": Kind(
        lambda: AutoregressiveTask(
            ARConfig(vocabulary=Vocabulary(text=20, video=CODES), hidden=16, intermediate=32,
                     layers=2, heads=2, max_text_tokens=4, max_positions=32), 17, CODEC
        ),
        "tokens", partial(ARStageConfig, prompt_dropout=0.25), 2, sequences=True,
    ),
    "dit": Kind(DiTTask, "frames", StageConfig, 2),
}  # fmt: skip


def write_data(folder: Path) -> dict[str, str]:
    """Write pixel and token shards of moving gradients; return their URIs by kind."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    frames, tokens = [], []
    for clip in range(CLIPS):
        t = np.arange(FRAMES)[:, None, None]
        red = (x * (clip % 5 + 1) * 3 + t * 9) % 256
        green = np.broadcast_to((y * 11 + clip * 15 + t) % 256, red.shape)
        video = np.stack([red, green, np.full_like(red, 16 * clip)], -1).astype(np.uint8)
        about = {"caption": None, "fps": 8.0, "split": "validation" if clip % 8 == 7 else "train"}
        frames.append(row(f"c{clip}", [window(video, FRAMES)], **about))
        windows = []
        for count, latents in ((1, 1), (5, 2)):
            codes = (clip + 3 * np.arange(latents * 4)) % CODES
            windows.append(window(codes.reshape(latents, 2, 2).astype(np.uint8), count))
        text = np.array([clip], np.int32).tobytes()
        tokens.append(row(f"c{clip}", windows, **about, text=text))
    summary = {"clips": CLIPS, "codebook_size": CODES, "fps": 8.0, "codec_fingerprint": "t",
               "text": {"kind": "pieces"}}  # fmt: skip
    specs = (shard_artifacts.FRAMES, tokens_spec(CODES))
    return {
        spec.kind: shard_artifacts.write(folder, spec, [rows], per_group=4, summary=summary)
        for spec, rows in zip(specs, (frames, tokens), strict=True)
    }


def train(
    kind: str,
    data: dict[str, str],
    output: Path,
    workers: int = 1,
    die_in_call: int | None = None,
    **run: Any,
) -> dict[str, Any]:
    """Train a kind of model for two stages of four steps.

    Args:
        kind: one of ``KINDS``.
        data: from `write_data`.
        output: of the run.
        workers: how many.
        die_in_call: kill the last worker there, once.
        run: fields of ``RunConfig``.
    """
    made = KINDS[kind]
    stages = tuple(
        made.stage(name=name, steps=4, batch_size=4, data=(Mix(frames=frames),),
                   micro_batch_size=made.micro_batch_size, learning_rate=1e-3)
        for name, frames in (("images", 1), ("short", 5))
    )  # fmt: skip
    task: Any = made.task()
    if die_in_call is not None:
        task = Dying(task, str(output) + ".died", die_in_call, workers - 1)
    job = JobConfig(
        input=(data[made.data],), output=str(output), resources=Resources(workers=workers)
    )
    settings = RunConfig(
        **{"log_every_steps": 1, "checkpoint_every_steps": 3, "max_failures": 1, "ema_decay": 0.5,
           "keep_checkpoints": 10, **run}
    )  # fmt: skip
    return launch(task, job, stages, settings, artifact.begin(kind, job))


TIMED = {"frames_per_second", "data_wait", "tflops_per_second", "peak_rss_gib", "seconds"}
"""What another attempt takes another time for."""


def log(output: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log without what is timed."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


def assert_same_log(output: Path, other: Path) -> None:
    """Compare what two finished runs of pictures say of themselves."""
    assert log(output) == log(other)
    pictures = [
        {file.name: file.read_bytes() for file in (run / "samples").iterdir()}
        for run in (output, other)
    ]
    assert pictures[0] == pictures[1]
    summaries = [json.loads((run / "summary.json").read_text()) for run in (output, other)]
    assert summaries[0]["validation"] == summaries[1]["validation"]


if __name__ == "__main__":
    from infra import cluster

    kind_, data_, output_, workers_, zero_ = sys.argv[1:]
    settings_ = DeepSpeedConfig(zero_stage=int(zero_))  # pyright: ignore[reportArgumentType]
    with cluster.session():
        train(kind_, json.loads(data_), Path(output_), int(workers_), deepspeed=settings_)
