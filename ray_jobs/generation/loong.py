"""Loong as a generating system: one stage, window by window by token re-encoding (section 3.3).

Its models are a finished `tokenizer` and a finished `autoregressive` artifact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch

from infra import artifact
from infra.errors import UserError
from infra.log import logger
from infra.progress import Progress
from models import exports, text
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.extension import Cue, Extension, cue_in_force, extend
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import SPECIALS_PER_SEQUENCE
from models.autoregressive.sampling import Sampling
from models.text import TextEncoder
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.model import VideoTokenizer
from ray_jobs.generation.requests import name_of
from ray_jobs.generation.system import FilmFormat, Frames, Group, Stage, SystemConfig, VideoRequest
from ray_jobs.prompts import Prompt, over_time, schedule


class LoongConfig(SystemConfig):
    """Settings of Loong."""

    kind: Literal["loong"] = "loong"
    extension: Extension
    """How long the video is, and how one window leads to the next."""
    sampling: Sampling = Sampling()

    def open(self, inputs: Sequence[str]) -> Loong:
        """Return the system with its models; see :class:`SystemConfig`."""
        return Loong(self, *models_of(inputs))


@dataclass(frozen=True)
class Loong:
    """Loong with the artifacts of its models; a `ray_jobs.generation.system.System`."""

    settings: LoongConfig
    tokenizer_uri: str
    autoregressive_uri: str

    @property
    def models(self) -> dict[str, str]:
        """The identities of both models."""
        return {
            "tokenizer": artifact.read(self.tokenizer_uri).identity,
            "autoregressive": artifact.read(self.autoregressive_uri).identity,
        }

    @property
    def film(self) -> FilmFormat:
        """Frames of the tokenizer's size at the rate of the clips that were trained on."""
        shape = _tokenizer_config(self.tokenizer_uri)
        summary = artifact.summary(self.autoregressive_uri, fps=float, trained_frames=int)
        return FilmFormat(
            self.settings.extension.total_frames,
            float(summary["fps"]),
            shape.height_px,
            shape.width_px,
            self.settings.extension.joins,
            int(summary["trained_frames"]),
        )

    def plan(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return the windows, and which of them follow which prompt; warn of prompts it cuts."""
        extension, film = self.settings.extension, self.film
        model = exports.config_of(self.autoregressive_uri)
        assert isinstance(model, ARConfig), "the kind of the artifact says so"
        for uri in (self.tokenizer_uri, self.autoregressive_uri):
            exports.check(uri)
        self._check_frames()
        self._check_codes(model)
        self._check_positions(model, prompts)
        self._say_what_is_cut(model, prompts)
        how = "re-encoded" if extension.strategy == "re-encode" else "kept as their tokens"
        return [
            f"{len(extension.joins)} joins: windows of {extension.window_frames} frames, the last "
            f"{extension.reencode_frames} {how}",
            *schedule(prompts, extension.first_frames, extension.total_frames, film.fps),
        ]

    def stages(self) -> list[Stage]:
        """Return the one stage, which holds both models."""
        uris = {"tokenizer": self.tokenizer_uri, "autoregressive": self.autoregressive_uri}
        return [Stage("windows", WindowWorker, uris)]

    def _check_frames(self) -> None:
        """Refuse windows that the codec cannot make."""
        codec, extension = exports.codec_spec(self.tokenizer_uri), self.settings.extension
        try:
            extension.check(codec)
        except ValueError as error:
            raise UserError(f"system.extension.{error}") from None

    def _check_codes(self, model: ARConfig) -> None:
        top_k, codes = self.settings.sampling.top_k, model.vocabulary.video
        if top_k is not None and top_k > codes:
            raise UserError(
                f"system.sampling.top_k: {top_k}; the model has {codes} codes, so at most {codes} "
                "is allowed"
            )

    def _check_positions(self, model: ARConfig, prompts: Sequence[Prompt]) -> None:
        """Refuse a window that is longer than the sequences that the model can hold."""
        extension, shape = self.settings.extension, _tokenizer_config(self.tokenizer_uri)
        latents = max(extension.window_latents(shape.codec_spec))
        rows, columns = _latent_size(shape)
        encode = text_encoder(self.autoregressive_uri, model)
        encoded = [encode(each.text) for prompt in prompts for each in over_time(prompt)]
        longest, highest = max(map(len, encoded)), max(max(ids, default=0) for ids in encoded)
        if highest >= model.vocabulary.text:
            raise UserError(
                f"input {self.autoregressive_uri}: a prompt has the text id {highest}; the model's "
                f"vocabulary holds ids below {model.vocabulary.text}"
            )
        # The end of the video is never read, nor is the last token.
        positions = SPECIALS_PER_SEQUENCE - 1 + longest + latents * rows * columns - 1
        if positions > model.max_positions:
            raise UserError(
                f"system.extension.window_frames: {extension.window_frames}; with the longest "
                f"prompt a window is a sequence of {positions} tokens, and the model holds "
                f"{model.max_positions}"
            )

    def _say_what_is_cut(self, model: ARConfig, prompts: Sequence[Prompt]) -> None:
        """Warn of each prompt of which the model sees only the beginning, and say which."""
        encoder = _encoder_of(self.autoregressive_uri)
        encode = text_encoder(self.autoregressive_uri, model)
        for words in (each.text.split() for prompt in prompts for each in over_time(prompt)):
            (whole,) = encoder.lengths([" ".join(words)])
            seen = len(encode(" ".join(words)))
            if seen < whole:
                tokens = partial(_tokens_of_beginning, encoder, words)
                fit = bisect_right(range(1, len(words)), seen, key=tokens)
                logger.warning(
                    f"prompt cut: the model takes {seen} of its {whole} tokens, and sees no more "
                    f"than: {' '.join(words[:fit])}"
                )


class WindowWorker:
    """Holds both models and makes the windows of a group of videos, one after the other.

    Args:
        tokenizer: URI of the artifact.
        autoregressive: URI of the artifact.
    """

    def __init__(self, tokenizer: str, autoregressive: str) -> None:
        """Load the models."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = cast(VideoTokenizer, exports.load(tokenizer, device))
        self._model = cast(LongtakeLlama, exports.load(autoregressive, device))
        self._encode = text_encoder(autoregressive, self._model.config)
        self._fps = float(artifact.summary(autoregressive, fps=float)["fps"])

    def __call__(self, group: Group, carried: bytes) -> Iterator[Frames]:
        """Yield the frames that each window adds."""
        settings = group.settings
        assert isinstance(settings, LoongConfig)
        rows, columns = _latent_size(self._tokenizer.config)
        total = settings.extension.video_tokens(self._tokenizer.spec, rows * columns)
        notes = self._notes(group.videos, settings.extension)
        with Progress(total, f"generate {name_of(group.videos)}", "tokens") as bar:
            made = extend(
                self._model,
                self._tokenizer,
                [self._cues(video) for video in group.videos],
                extension=settings.extension,
                height=rows,
                width=columns,
                sampling=settings.sampling,
                seeds=[video.seed for video in group.videos],
                on_token=lambda _: bar.advance(note=notes[0]),
            )
            for chunk in made:
                drift_B = chunk.join_colour_drift_B
                yield Frames(
                    chunk.frames_BFHWC.numpy(), None if drift_B is None else drift_B.tolist()
                )
                notes.pop(0)

    def _cues(self, video: VideoRequest) -> list[Cue]:
        return [
            Cue(self._encode(prompt.text), round(prompt.from_s * self._fps))
            for prompt in video.prompts
        ]

    def _notes(self, videos: Sequence[VideoRequest], extension: Extension) -> list[str]:
        """Return the text in force in each window; nothing where all follow the same one."""
        prompts = videos[0].prompts
        if len(videos) > 1 or len(prompts) == 1:
            return [""] * len(extension.first_frames)
        starts = [round(prompt.from_s * self._fps) for prompt in prompts]
        return [prompts[cue_in_force(starts, first)].text for first in extension.first_frames]


def models_of(inputs: Sequence[str]) -> tuple[str, str]:
    """Return the URIs of the tokenizer and of the autoregressive model, which go together.

    Raises:
        UserError: they are something else, or the model has not been trained on such codes.
    """
    kinds = {artifact.read(uri, ("tokenizer", "autoregressive")).kind: uri for uri in inputs}
    if len(inputs) != 2 or len(kinds) != 2:
        raise UserError(
            f"input: {', '.join(inputs)}; allowed are one artifact of kind tokenizer and "
            "one of kind autoregressive"
        )
    made_for = artifact.summary(kinds["autoregressive"], tokenizer_fingerprint=str)
    identity = artifact.read(kinds["tokenizer"]).identity
    if made_for["tokenizer_fingerprint"] != identity:
        raise UserError(
            f"input {kinds['autoregressive']}: trained on codes of tokenizer "
            f"{made_for['tokenizer_fingerprint']}, not of {kinds['tokenizer']} ({identity})"
        )
    return kinds["tokenizer"], kinds["autoregressive"]


def _tokenizer_config(uri: str) -> TokenizerConfig:
    config = exports.config_of(uri)
    assert isinstance(config, TokenizerConfig), "the kind of the artifact says so"
    return config


def _latent_size(config: TokenizerConfig) -> tuple[int, int]:
    """Return the rows and columns of a latent frame."""
    return config.latent_shape(1)[1:]


def text_encoder(autoregressive: str, model: ARConfig) -> Callable[[str], list[int]]:
    """Return the encoding of prompts that the model was trained with, as its artifact states it.

    Raises:
        UserError: the text model is not there, or is another one by now.
    """
    encoder = _encoder_of(autoregressive)

    def encode(prompt: str) -> list[int]:
        (ids,) = encoder.encode([prompt])
        return ids.tolist()[: model.max_text_tokens]

    return encode


def _tokens_of_beginning(encoder: TextEncoder, words: Sequence[str], count: int) -> int:
    (tokens,) = encoder.lengths([" ".join(words[:count])])
    return tokens


def _encoder_of(autoregressive: str) -> TextEncoder:
    summary = artifact.summary(autoregressive, text=dict, text_fingerprint=str)
    encoder = text.build(text.parse(summary["text"]))
    if encoder.spec.fingerprint != summary["text_fingerprint"]:
        raise UserError(
            f"input {autoregressive}: trained with text encoder {summary['text_fingerprint']}; "
            f"what its config names is now {encoder.spec.fingerprint}"
        )
    return encoder
