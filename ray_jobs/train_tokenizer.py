"""Train the video tokenizer in stages on frames (Loong, section 3.1 and 4.1).

input: a finished artifact of kind `frames`. output: the trained tokenizer (`model.safetensors`,
`config.json`), `metrics.jsonl`, TensorBoard events, pictures and checkpoints.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_prep.sample import Sample
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig, Uri
from infra.errors import UserError
from infra.job import Job, main
from models import exports, weights
from models.evaluation.reconstruction import constant_colour_psnr_db, psnr_db
from models.evaluation.tokens import usage
from models.losses.lpips import Perceptual
from models.pixels import to_frames, to_pixels
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.inflation import TrainedOn, inflate
from models.tokenizer.model import VideoTokenizer, parameter_count
from models.tokenizer.training import (
    TrainingTokenizer,
    for_training,
    tokenizer_config,
    tokenizer_state,
)
from ray_jobs.training.config import RunConfig, StageConfig
from ray_jobs.training.launch import check, launch
from ray_jobs.training.pictures import png

PICTURED_CLIPS = 4
PICTURED_FRAMES = 3


class TrainTokenizerConfig(JobConfig):
    """Settings of `train_tokenizer`."""

    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "run.tracking")
    model: TokenizerConfig = TokenizerConfig()
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    """In the paper 1, then 17, then 65 frames."""
    run: RunConfig = RunConfig()
    inflate_from: Uri | None = None
    """URI of an exported tokenizer to start from that may have fewer frames in its temporal kernels
    (`models.tokenizer.inflation`); in place of ``run.initial``."""
    inflate_trained_on: TrainedOn = "images"
    """What that tokenizer has seen. After images alone its taps in time are only their sum."""


class TokenizerTask:
    """What the engine needs to know of the tokenizer."""

    unit = "frames"

    def __init__(self, config: TokenizerConfig, inflate: TrainedOn | None = None) -> None:
        """Remember the settings; the model is built in the worker.

        Args:
            config: of the tokenizer.
            inflate: `load` inflates what it reads, which has seen this; None: takes it as it is.
        """
        self._config = config
        self._inflate: TrainedOn | None = inflate

    def build(self) -> VideoTokenizer:
        """Return a fresh tokenizer with what judges it; on the meta device only check LPIPS's file.

        Raises:
            UserError: ``perceptual.weights`` is not there, or no such file.
        """
        model = for_training(self._config)
        uri = self._config.perceptual.weights
        if isinstance(model, TrainingTokenizer) and model.perceptual is not None and uri:
            _fill_perceptual(model.perceptual, uri)
        return model

    def loss(
        self, model: torch.nn.Module, samples: list[Sample], stage: StageConfig
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """Return the weighted loss, its parts, and the number of frames."""
        x_BCTHW = _pixels(samples, next(model.parameters()).device)
        out = model(x_BCTHW)
        parts = {name: value.detach() for name, value in out.losses.items()}
        parts["codebook_perplexity"] = out.perplexity.detach()
        parts |= {f"discriminator_{name}": value for name, value in out.logits.items()}
        return out.loss, parts, x_BCTHW.shape[0] * x_BCTHW.shape[2]

    def validate(
        self, model: torch.nn.Module, samples: list[Sample]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Measure reconstruction and codebook use on held-out clips; picture a few."""
        tokenizer = cast(VideoTokenizer, model)
        device = next(model.parameters()).device
        errors, baselines, ids, rows = [], [], [], []
        halves: list[tuple[float, float]] = []
        perceptual = getattr(model, "perceptual", None)
        distances = []
        for number, sample in enumerate(samples):
            x_BCTHW = _pixels([sample], device)
            codes = tokenizer.encode(x_BCTHW)
            y_BCTHW = tokenizer.decode(codes)
            errors.append(float(psnr_db(x_BCTHW, y_BCTHW)))
            baselines.append(float(constant_colour_psnr_db(x_BCTHW)))
            if (middle := x_BCTHW.shape[2] // 2) > 0:
                early, late = (psnr_db(x_BCTHW[:, :, at], y_BCTHW[:, :, at])
                               for at in (slice(middle), slice(middle, None)))  # fmt: skip
                halves.append((early, late))
            ids.append(codes.flatten().cpu())
            if perceptual is not None:
                distances.append(float(perceptual(x_BCTHW, y_BCTHW).mean()))
            if number < PICTURED_CLIPS:
                rows += [_frames(x_BCTHW), _frames(y_BCTHW)]
        use = usage(torch.cat(ids), tokenizer.codebook_size)
        figures = {
            "clips": len({sample.clip_id for sample in samples}),
            "windows": len(samples),
            "frames": int(samples[0].data.shape[0]),
            "psnr_db": float(np.mean(errors)),
            "psnr_constant_colour_db": float(np.mean(baselines)),
            **_halves(halves),
            **({"lpips": float(np.mean(distances))} if distances else {}),
            "codebook_size": tokenizer.codebook_size,
            "codebook_used": use.used,
            "codebook_perplexity": use.perplexity,
        }
        originals = [frame for row in rows[0::2] for frame in row]
        copies = [frame for row in rows[1::2] for frame in row]
        return figures, {"validation.png": png([originals, copies])}

    def export(self, state: dict[str, Tensor], folder: str) -> None:
        """Write the tokenizer's weights and settings; what judged it stays behind."""
        exports.save_state(tokenizer_state(state), tokenizer_config(self._config), Path(folder))

    def load(self, model: torch.nn.Module, uri: str) -> None:
        """Fill a built model from an exported one; a discriminator stays as it is."""
        config = self._config
        if self._inflate is not None:
            config = exports.config_of(uri)
            if not isinstance(config, TokenizerConfig):
                raise UserError(f"inflate_from: {uri}: allowed is a video tokenizer")
        with next(model.parameters()).device:
            read = VideoTokenizer(config)
        exports.fill(read, uri)
        state = read.state_dict()
        if self._inflate is not None:
            try:
                state = inflate(state, config, self._config, self._inflate)
            except ValueError as error:
                raise UserError(f"inflate_from: {uri} does not fit: {error}") from None
        model.load_state_dict({**model.state_dict(), **state})


def _halves(psnr: list[tuple[float, float]]) -> dict[str, float]:
    """Return the means of the first and of the last half of each clip of several frames."""
    if not psnr:
        return {}
    early, late = np.mean(psnr, axis=0).tolist()
    return {"psnr_early_frames_db": early, "psnr_late_frames_db": late}


def _fill_perceptual(perceptual: Perceptual, uri: str) -> None:
    wanted = perceptual.weights()
    if next(iter(wanted.values())).is_meta:
        exports.check_fits(wanted, uri)
        return
    with storage.local_copy(uri) as file:
        perceptual.fill(weights.load_like(wanted, file))


def _pixels(samples: list[Sample], device: torch.device) -> Tensor:
    return to_pixels(np.stack([sample.data for sample in samples]), device)


def _frames(x_BCTHW: Tensor) -> list[np.ndarray]:
    frames = to_frames(x_BCTHW[0])
    places = np.linspace(0, len(frames) - 1, min(PICTURED_FRAMES, len(frames))).round().astype(int)
    return [frames[place] for place in places]


def plan(config: TrainTokenizerConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    task, settings = _task(config)
    check(task, config, config.stages, settings)
    if config.run.deepspeed.precision != "fp32":
        raise UserError(
            f"run.deepspeed.precision: {config.run.deepspeed.precision}; allowed is fp32 (the "
            "codebook is moved by steps that lower precisions lose)"
        )
    if config.model.adversarial is not None and config.run.deepspeed.zero_stage == 3:
        raise UserError(
            "run.deepspeed.zero_stage: 3; with model.adversarial allowed are 0, 1 and 2 (the "
            "tokenizer is judged by copies of the discriminator's weights, which ZeRO 3 shares out)"
        )
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact of kind frames")
    info = artifact.read(config.input[0], ("frames",))
    lines = [f"train a tokenizer on {info.counts.get('clips', 0)} clips of {config.input[0]}"]
    for stage in config.stages:
        lengths = ", ".join(str(mix.frames) for mix in stage.data)
        lines.append(
            f"stage {stage.name}: {stage.steps} steps of {stage.batch_size} clips, {lengths} frames"
        )
    return lines + _judges(config.model)


def _task(config: TrainTokenizerConfig) -> tuple[TokenizerTask, RunConfig]:
    """Return the task and the run's settings, which begin with the tokenizer to inflate, if any."""
    if config.inflate_from is None:
        return TokenizerTask(config.model), config.run
    if config.run.initial is not None:
        raise UserError(
            f"inflate_from: {config.inflate_from}; run.initial is {config.run.initial}: allowed is "
            "one of them"
        )
    run = config.run.model_copy(update={"initial": config.inflate_from})
    return TokenizerTask(config.model, config.inflate_trained_on), run


def _judges(model: TokenizerConfig) -> list[str]:
    """Return what of the loss is on."""
    perceptual, adversarial = model.perceptual, model.adversarial
    lpips = "off (model.perceptual.weights is not set)"
    if perceptual.weights is not None:
        lpips = f"weight {perceptual.weight:g}, weights of {perceptual.weights}"
    gan = "off (model.adversarial is not set)"
    if adversarial is not None:
        gan = f"weight {adversarial.weight:g}, from pass {adversarial.start_step}"
    return [f"perceptual loss: {lpips}", f"discriminator: {gan}"]


def run(config: TrainTokenizerConfig, output: Output) -> dict[str, Any]:
    """Train and return the summary."""
    task, settings = _task(config)
    figures = launch(task, config, config.stages, settings, output)
    return {**figures, "parameters": parameter_count(config.model)}


JOB = Job("train_tokenizer", "tokenizer", TrainTokenizerConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
