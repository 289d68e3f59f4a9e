"""Training task of the video tokenizer (Loong, section 3.1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from data_prep.sample import Sample
from infra.errors import UserError
from models import exports, hub, weights
from models.evaluation.reconstruction import constant_colour_psnr_db, psnr_db
from models.evaluation.tokens import usage
from models.losses.lpips import Perceptual
from models.pixels import to_frames, to_pixels
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.inflation import inflate
from models.tokenizer.model import VideoTokenizer
from models.tokenizer.training import (
    TrainingTokenizer,
    for_training,
    tokenizer_config,
    tokenizer_state,
)
from ray_jobs.training.config import StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.pictures import png
from ray_jobs.training.task import Judgement, State, StepLoss

PICTURED_CLIPS = 4
PICTURED_FRAMES = 3


class TokenizerTask:
    """What the engine needs to know of the tokenizer."""

    unit = "frames"
    frozen: tuple[str, ...] = ()

    def __init__(self, config: TokenizerConfig) -> None:
        """Remember the settings; the model is built in the worker."""
        self._config = config

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

    def loss(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> StepLoss:
        """Return the weighted loss, its parts, and the number of frames."""
        x_BCTHW = _pixels(samples, next(model.parameters()).device)
        out = model(x_BCTHW)
        parts = {name: value.detach() for name, value in out.losses.items()}
        parts["codebook_perplexity"] = out.perplexity.detach()
        parts |= {f"discriminator_{name}": value for name, value in out.logits.items()}
        return StepLoss(out.loss, parts, x_BCTHW.shape[0] * x_BCTHW.shape[2])

    def validate(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> Judgement:
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
        figures: dict[str, Any] = {
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
        return Judgement(figures, {"validation.png": png([originals, copies])})

    def inherit(
        self,
        state: State,
        before: Sequence[StageConfig],
        stage: StageConfig,
        initial: InitialConfig | None,
    ) -> State:
        """Inflate the weights where the tokenizer has seen images alone and now sees videos.

        Images leave half of a time-doubling layer without gradient: plain copies of its weights
        decode three of four frames with what was never trained.
        """
        seen_images_only = initial is None or (
            initial.how == "inflate" and initial.trained_on != "videos"
        )
        begins_videos = _of_images(before) and not _of_images([stage])
        if not (seen_images_only and begins_videos):
            return state
        return inflate(state, self._config, self._config, trained_on="images")

    def export(self, state: State, folder: str) -> None:
        """Write the tokenizer's weights and settings; what judged it stays behind."""
        exports.save_state(tokenizer_state(state), tokenizer_config(self._config), Path(folder))

    def load(self, model: nn.Module, initial: InitialConfig) -> None:
        """Fill a built model from an exported one; a discriminator stays as it is."""
        uri, inflates = initial.uri, initial.how == "inflate"
        if initial.how == "base":
            raise UserError("initial.how: base; a tokenizer has none: allowed are same and inflate")
        config = exports.config_of(uri) if inflates else self._config
        if not isinstance(config, TokenizerConfig):
            raise UserError(f"initial.from: {uri}: allowed is a video tokenizer")
        with next(model.parameters()).device:
            read = VideoTokenizer(config)
        exports.fill(read, uri)
        state = read.state_dict()
        if inflates:
            try:
                state = inflate(state, config, self._config, initial.trained_on or "images")
            except ValueError as error:
                raise UserError(f"initial.from: {uri} does not inflate: {error}") from None
        model.load_state_dict({**model.state_dict(), **state})


def _of_images(stages: Sequence[StageConfig]) -> bool:
    return all(mix.frames == 1 for stage in stages for mix in stage.data)


def _halves(psnr: list[tuple[float, float]]) -> dict[str, float]:
    """Return the means of the first and of the last half of each clip of several frames."""
    if not psnr:
        return {}
    early, late = np.mean(psnr, axis=0).tolist()
    return {"psnr_early_frames_db": early, "psnr_late_frames_db": late}


def _fill_perceptual(perceptual: Perceptual, uri: str) -> None:
    wanted = perceptual.weights()
    file = hub.local_file(uri)
    if next(iter(wanted.values())).is_meta:
        exports.check_fits(wanted, str(file))
        return
    perceptual.fill(weights.load_like(wanted, file))


def _pixels(samples: list[Sample], device: torch.device) -> Tensor:
    return to_pixels(np.stack([sample.data for sample in samples]), device)


def _frames(x_BCTHW: Tensor) -> list[np.ndarray]:
    frames = to_frames(x_BCTHW[0])
    places = np.linspace(0, len(frames) - 1, min(PICTURED_FRAMES, len(frames))).round().astype(int)
    return [frames[place] for place in places]
