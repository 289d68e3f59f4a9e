"""Training task of the autoregressive model (Loong, sections 3.2 and 4.1)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from data_prep.sample import Sample
from infra.errors import UserError
from models import exports
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.loss import (
    Reduction,
    WeightedClips,
    early_frame_weighted_loss,
    frame_range_losses,
    next_token_loss,
    token_nll,
)
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import TokenBatch, build_batch
from models.codec import CodecSpec
from models.evaluation.tokens import unigram_entropy_nats
from ray_jobs.training.config import StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.task import Judgement, State, StepLoss


class ARStageConfig(StageConfig):
    """One stage of Loong's short-to-long training."""

    early_frame_weight: Annotated[float, Field(ge=0)] = 0.0
    """λ of Eq. 2; the paper sets 1 in its last stage. 0 is Eq. 1."""
    early_frame_weight_of: WeightedClips = "all"
    """Which clips λ weighs, where lengths are mixed. all: Eq. 2 as it stands, by which images and
    17 frames are early from end to end and count 1 + λ. longer: only clips of more than
    `early_frames`; the others count as in Eq. 1. The paper does not say."""
    loss_reduction: Reduction = "mean"
    """How the tokens of a clip add up; clips are averaged. mean: one learning rate and one clipping
    of gradients serve clips of every length. sum: as Eq. 1 and 2 are written, by which a clip of
    17 latent frames counts as much as 17 images."""
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the samples that are trained on with an empty prompt: what `sampling.guidance_scale`
    of generation is guided away from. The paper is silent on it."""


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
    frozen: tuple[str, ...] = ()

    def __init__(self, config: ARConfig, early_frames: int, codec: CodecSpec) -> None:
        """Remember the settings; the model is built in the worker.

        Args:
            config: of the model.
            early_frames: frames whose tokens are the first K of Eq. 2.
            codec: made the tokens.

        Raises:
            ValueError: the codec makes no clip of so many early frames.
        """
        self._config, self._codec = config, codec
        self._early_latents = codec.latents_of_frames(early_frames)

    def build(self) -> NextToken:
        """Return a fresh model."""
        return NextToken(LongtakeLlama(self._config))

    def loss(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> StepLoss:
        """Return Eq. 2 (Eq. 1 when λ is 0), the losses by frame range, and the number of tokens."""
        stage = cast(ARStageConfig, stage)
        samples = [_less_prompt(sample, stage.prompt_dropout) for sample in samples]
        batch = self._batch(samples, next(model.parameters()).device)
        nll_BTHW = model(batch)
        loss = early_frame_weighted_loss(
            nll_BTHW,
            early_frame_weight=stage.early_frame_weight,
            early_latents=self._early_latents,
            reduction=stage.loss_reduction,
            weighted=stage.early_frame_weight_of,
        )
        metrics = {
            "loss_nats": next_token_loss(nll_BTHW).detach(),
            **frame_range_losses(nll_BTHW, self._codec),
        }
        return StepLoss(loss, metrics, nll_BTHW.numel())

    def validate(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> Judgement:
        """Return held-out losses, beside the entropy of the best model that ignores context."""
        device = next(model.parameters()).device
        counts = np.zeros(self._config.vocabulary.video, np.int64)
        total, ranges = 0.0, defaultdict[str, list[float]](list)
        for sample in samples:
            nll_BTHW = model(self._batch([sample], device))
            total += float(nll_BTHW.sum())
            counts += np.bincount(sample.data.ravel(), minlength=counts.size)
            for name, value in frame_range_losses(nll_BTHW, self._codec).items():
                ranges[name].append(float(value))  # as many tokens in a range, whichever the clip
        loss = total / int(counts.sum())
        figures: dict[str, Any] = {
            "loss": loss,
            "loss_nats": loss,
            **{name: float(np.mean(values)) for name, values in ranges.items()},
            "unigram_entropy_nats": float(unigram_entropy_nats(counts)),
            "clips": len({sample.clip_id for sample in samples}),
            "windows": len(samples),
            "tokens": int(counts.sum()),
        }
        return Judgement(figures)

    def inherit(
        self,
        state: State,
        before: Sequence[StageConfig],
        stage: StageConfig,
        initial: InitialConfig | None,
    ) -> State:
        """Begin each stage with the weights as they are."""
        return state

    def export(self, state: State, folder: str) -> None:
        """Write the weights under the names of transformers' LlamaForCausalLM."""
        llama = {name.removeprefix("llama."): tensor for name, tensor in state.items()}
        exports.save_state(llama, self._config, Path(folder))

    def load(self, model: nn.Module, initial: InitialConfig) -> None:
        """Fill a built model from an exported one."""
        if initial.how != "same":
            raise UserError(f"initial.how: {initial.how}; allowed for this model is same")
        exports.fill(cast(NextToken, model).llama, initial.uri)

    def _batch(self, samples: list[Sample], device: torch.device) -> TokenBatch:
        codes_BTHW = torch.from_numpy(np.stack([sample.data for sample in samples])).long()
        text = [[] if sample.text is None else sample.text.tolist() for sample in samples]
        return build_batch(self._config, text, codes_BTHW).to(device)


def _less_prompt(sample: Sample, share: float) -> Sample:
    """Return the sample, of so large a share of all without its prompt."""
    drawn = torch.rand((), generator=torch.Generator().manual_seed(sample.seed))
    return replace(sample, text=None) if drawn < share else sample
