"""Train the autoregressive model in stages on token shards (Loong, sections 3.1, 3.2 and 4.1).

input: a finished artifact of kind `tokens`. output: the trained model (`model.safetensors`,
`config.json`), `metrics.jsonl`, TensorBoard events and checkpoints.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from data_prep.loader import Loader
from data_prep.sample import Sample
from data_prep.sampling import TRAIN
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from models import exports
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.loss import (
    early_frame_weighted_loss,
    frame_range_losses,
    next_token_loss,
    token_nll,
)
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import (
    SPECIALS_PER_SEQUENCE,
    TokenBatch,
    build_batch,
    latents_of_frames,
)
from models.evaluation.tokens import unigram_entropy_nats
from ray_jobs.training.config import RunConfig, StageConfig
from ray_jobs.training.launch import check, launch


class ARStageConfig(StageConfig):
    """One stage of Loong's short-to-long training."""

    early_frame_weight: Annotated[float, Field(ge=0)] = 0.0
    """λ of Eq. 2; the paper sets 1 in its last stage. 0 is Eq. 1."""
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the samples that are trained on with an empty prompt: what `sampling.guidance_scale`
    of generation is guided away from. The paper is silent on it."""


class TrainAutoregressiveConfig(JobConfig):
    """Settings of `train_autoregressive`."""

    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "run.tracking")
    model: ARConfig = ARConfig()
    early_frames: Annotated[int, Field(ge=1)] = 17
    """Frames whose tokens are the first K of Eq. 2."""
    stages: Annotated[tuple[ARStageConfig, ...], Field(min_length=1)]
    """In the paper images, then images and 17 frames, then 65 frames."""
    run: RunConfig = RunConfig()


class NextToken(nn.Module):
    """The model as DeepSpeed calls it: sequences in, -log p of every video token out.

    Workers that share sequences give the same batch and get the same result.
    """

    def __init__(self, llama: LongtakeLlama) -> None:
        """Wrap a model."""
        super().__init__()
        self.llama = llama

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return -log p(v_i | v_<i, t), (B, T, H, W), in nats."""
        return token_nll(self.llama, batch)


class AutoregressiveTask:
    """What the engine needs to know of the autoregressive model."""

    unit = "tokens"

    def __init__(self, config: ARConfig, early_frames: int) -> None:
        """Remember the settings; the model is built in the worker."""
        self._config, self._early_frames = config, early_frames

    def build(self) -> NextToken:
        """Return a fresh model."""
        return NextToken(LongtakeLlama(self._config))

    def loss(
        self, model: nn.Module, samples: list[Sample], stage: StageConfig
    ) -> tuple[Tensor, dict[str, Tensor], int]:
        """Return Eq. 2 (Eq. 1 when λ is 0), the losses by frame range, and the number of tokens."""
        stage = cast(ARStageConfig, stage)
        samples = [_less_prompt(sample, stage.prompt_dropout) for sample in samples]
        batch = self._batch(samples, next(model.parameters()).device)
        nll_BTHW = model(batch)
        loss = early_frame_weighted_loss(
            nll_BTHW,
            early_frame_weight=stage.early_frame_weight,
            early_frames=self._early_frames,
        )
        metrics = {"loss_nats": next_token_loss(nll_BTHW).detach(), **frame_range_losses(nll_BTHW)}
        return loss, metrics, nll_BTHW.numel()

    def validate(
        self, model: nn.Module, samples: list[Sample]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return held-out losses, beside the entropy of the best model that ignores context."""
        device = next(model.parameters()).device
        counts = np.zeros(self._config.vocabulary.video, np.int64)
        total, ranges = 0.0, defaultdict[str, list[float]](list)
        for sample in samples:
            nll_BTHW = model(self._batch([sample], device))
            total += float(nll_BTHW.sum())
            counts += np.bincount(sample.data.ravel(), minlength=counts.size)
            for name, value in frame_range_losses(nll_BTHW).items():
                ranges[name].append(float(value))  # as many tokens in a range, whichever the clip
        loss = total / int(counts.sum())
        return {
            "loss": loss,
            "loss_nats": loss,
            **{name: float(np.mean(values)) for name, values in ranges.items()},
            "unigram_entropy_nats": float(unigram_entropy_nats(counts)),
            "clips": len({sample.clip_id for sample in samples}),
            "windows": len(samples),
            "tokens": int(counts.sum()),
        }, {}

    def export(self, state: dict[str, Tensor], folder: str) -> None:
        """Write the weights under the names of transformers' LlamaForCausalLM."""
        llama = {name.removeprefix("llama."): tensor for name, tensor in state.items()}
        exports.save_state(llama, self._config, Path(folder))

    def load(self, model: nn.Module, uri: str) -> None:
        """Fill a built model from an exported one."""
        exports.fill(cast(NextToken, model).llama, uri)

    def _batch(self, samples: list[Sample], device: torch.device) -> TokenBatch:
        codes_BTHW = torch.from_numpy(np.stack([sample.data for sample in samples])).long()
        text = [[] if sample.text is None else sample.text.tolist() for sample in samples]
        return build_batch(self._config, text, codes_BTHW).to(device)


def _less_prompt(sample: Sample, share: float) -> Sample:
    """Return the sample, of so large a share of all without its prompt."""
    drawn = torch.rand((), generator=torch.Generator().manual_seed(sample.seed))
    return replace(sample, text=None) if drawn < share else sample


def plan(config: TrainAutoregressiveConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    check(AutoregressiveTask(config.model, config.early_frames), config, config.stages, config.run)
    sharing = config.run.deepspeed.sequence_parallel
    if config.model.heads % sharing:
        raise UserError(
            f"run.deepspeed.sequence_parallel: {sharing}; allowed is a divisor of model.heads "
            f"{config.model.heads}"
        )
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact of kind tokens")
    info = artifact.read(config.input[0], ("tokens",))
    codes = info.counts.get("codebook_size", 0)
    if codes != config.model.vocabulary.video:
        raise UserError(
            f"model.vocabulary.video: {config.model.vocabulary.video}; the tokens of "
            f"{config.input[0]} have {codes} codes, so {codes} is allowed"
        )
    _check_length(config)
    lines = [f"train on {info.counts.get('tokens', 0)} tokens of {config.input[0]}"]
    for stage in config.stages:
        lengths = ", ".join(f"{mix.frames} frames x{mix.weight:g}" for mix in stage.data)
        empty = f", {stage.prompt_dropout:.0%} without prompt" if stage.prompt_dropout else ""
        lines.append(
            f"stage {stage.name}: {stage.steps} steps of {stage.batch_size} clips, {lengths}, "
            f"λ {stage.early_frame_weight:g}{empty}"
        )
    return lines


def _check_length(config: TrainAutoregressiveConfig) -> None:
    beside = config.model.max_text_tokens + SPECIALS_PER_SEQUENCE
    for stage in config.stages:
        loader = Loader(config.input[0], TRAIN, stage.data, steps=1, batch_size=1, seed=0)
        for frames, height, width in loader.shapes:
            longest = latents_of_frames(frames) * height * width + beside
            if longest > config.model.max_positions:
                raise UserError(
                    f"model.max_positions: {config.model.max_positions}; stage {stage.name} has "
                    f"sequences of up to {longest} tokens ({frames} frames)"
                )


def run(config: TrainAutoregressiveConfig, output: Output) -> dict[str, Any]:
    """Train and return the summary."""
    task = AutoregressiveTask(config.model, config.early_frames)
    summary = launch(task, config, config.stages, config.run, output)
    tokens = storage.read_json(storage.join(config.input[0], "summary.json"))
    return {
        **summary,
        "fps": tokens["fps"],
        "text": tokens["text"],
        "trained_frames": max(mix.frames for stage in config.stages for mix in stage.data),
        "tokenizer_fingerprint": tokens["codec_fingerprint"],
    }


JOB = Job("train_autoregressive", "autoregressive", TrainAutoregressiveConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
