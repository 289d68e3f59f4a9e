"""Measure how well trained models continue held-out film over a join (Loong, Fig. 5).

input: a finished `tokenizer`, a finished `autoregressive` and a finished `frames` artifact, in any
order. output: `films.json`, what became of each film, and their means in the summary. Nothing is
sampled: the model is asked how likely the true tokens are.
"""

from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field

from data_prep.loader import Loader, Mix
from data_prep.sampling import VALIDATION
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from models import exports
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.continuation import continue_film, film_frames
from models.autoregressive.loong.extension import Strategy
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import SPECIALS_PER_SEQUENCE
from models.pixels import to_pixels
from ray_jobs import units
from ray_jobs.generation.loong import models_of, text_encoder
from ray_jobs.units import Factory, Parts, Receipt

FILMS_A_PART = 8
FIGURES = ("token_disagreement", "continuation_nats")
CONTINUED, FILE = "continued", "films.json"


class ContinuationConfig(JobConfig):
    """Settings of `continuation`."""

    strategy: Strategy = "re-encode"
    """How the known frames enter the next window: encoded anew, or as the tokens that they are."""
    window_frames: Annotated[int, Field(ge=2)] = 65
    """Frames of each of the two windows."""
    reencode_frames: Annotated[int, Field(ge=1)] = 17
    """n, the last frames of a window that open the next one."""
    films: Annotated[int, Field(ge=1)] = 64
    """Held-out films, drawn by the seed; rounded up to eights."""


def plan(config: ContinuationConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    uris = _inputs(config)
    codec = exports.codec_spec(uris["tokenizer"])
    if config.reencode_frames >= config.window_frames:
        raise UserError(
            f"reencode_frames: {config.reencode_frames}; allowed is less than window_frames "
            f"{config.window_frames}"
        )
    for key in ("window_frames", "reencode_frames"):
        try:
            codec.check_frames(getattr(config, key))
        except ValueError as error:
            raise UserError(f"{key}: {error}") from None
    frames = film_frames(config.window_frames, config.reencode_frames)
    model = exports.config_of(uris["autoregressive"])
    assert isinstance(model, ARConfig), "the kind of the artifact says so"
    for _, height, width in _films(config, uris["frames"]).shapes:
        latents, rows, columns = codec.latent_shape(config.window_frames, height, width)
        longest = latents * rows * columns + model.max_text_tokens + SPECIALS_PER_SEQUENCE
        if longest > model.max_positions:
            raise UserError(
                f"window_frames: {config.window_frames}; a window is a sequence of up to {longest} "
                f"tokens, and the model holds {model.max_positions}"
            )
    return [
        f"{_parts(config, '').count * FILMS_A_PART} held-out films of {frames} frames of "
        f"{uris['frames']}",
        f"the last {config.reencode_frames} frames of a window of {config.window_frames} enter the "
        f"next one by {config.strategy}",
    ]


def run(config: ContinuationConfig, output: Output) -> dict[str, Any]:
    """Measure what is missing and return the summary."""
    parts, factory = work_of(config, output.uri)
    for _ in units.run(parts, factory, config.resources):
        pass
    rows = [row for part in range(parts.count) for row in storage.read_json(parts.uri(part))]
    storage.write_json(output.path(FILE), rows)
    storage.remove(output.path(CONTINUED))
    means = {name: float(np.mean([row[name] for row in rows])) for name in FIGURES}
    return {"films": len(rows), **means}


def work_of(config: ContinuationConfig, output_uri: str) -> tuple[Parts, Factory]:
    """Return the parts of a run and how to build their workers."""
    parts = _parts(config, output_uri)
    return parts, Factory(Continuing, {"parts": parts, "config": config, "uris": _inputs(config)})


class Continuing:
    """Holds both models and continues the films of a part; a worker of :func:`units.run`.

    Args:
        parts: of the job.
        config: of the job.
        uris: of the inputs, by kind.
    """

    def __init__(self, parts: Parts, config: ContinuationConfig, uris: dict[str, str]) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._codec = exports.load_codec(uris["tokenizer"], self._device)
        self._model = cast(LongtakeLlama, exports.load(uris["autoregressive"], self._device))
        self._encode = text_encoder(uris["autoregressive"], self._model.config)
        self._films = _films(config, uris["frames"])
        self._parts, self._config = parts, config

    def __call__(self, part: int) -> Receipt:
        """Write what becomes of a part's films."""
        samples = self._films.batch(part)
        made = continue_film(
            self._model,
            self._codec,
            [self._encode(sample.caption or "") for sample in samples],
            to_pixels(np.stack([sample.data for sample in samples]), self._device),
            reencode_frames=self._config.reencode_frames,
            strategy=self._config.strategy,
        )
        figures = zip(samples, made.disagreement_B.tolist(), made.nll_B.tolist(), strict=True)
        rows = [
            {"clip_id": film.clip_id, "start_frame": film.start_frame,
             **dict(zip(FIGURES, (disagreement, nats), strict=True))}
            for film, disagreement, nats in figures
        ]  # fmt: skip
        storage.write_json(self._parts.uri(part), rows)
        return {"rows": len(rows), "failed": 0}


def _inputs(config: ContinuationConfig) -> dict[str, str]:
    """Return the inputs by kind.

    Raises:
        UserError: there is not one of each kind, or the models do not go together.
    """
    kinds = ("tokenizer", "autoregressive", "frames")
    found = {artifact.read(uri, kinds).kind: uri for uri in config.input}
    if len(config.input) != 3 or len(found) != 3:
        raise UserError(
            f"input: {', '.join(config.input)}; allowed are one artifact each of the kinds "
            f"{', '.join(kinds)}"
        )
    models_of([found["tokenizer"], found["autoregressive"]])
    return found


def _films(config: ContinuationConfig, frames: str) -> Loader:
    length = Mix(frames=film_frames(config.window_frames, config.reencode_frames))
    steps = _parts(config, "").count
    return Loader(frames, VALIDATION, [length], steps, FILMS_A_PART, config.seed)


def _parts(config: ContinuationConfig, output: str) -> Parts:
    return Parts(output, CONTINUED, -(-config.films // FILMS_A_PART), ".json")


JOB = Job("continuation", "continuation", ContinuationConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
