"""Generate videos from prompts, longer than the clips that were trained on (Loong, section 3.3).

input: a finished `tokenizer` and a finished `autoregressive` artifact, in any order. output:
`videos/*.mp4`, and `videos.parquet` with what made each of them.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, cast

import ray.data
import torch
from pydantic import Field
from ray.actor import ActorHandle
from ray.util import ActorPool

from data_prep.encode import Mp4Writer
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from infra.progress import Progress
from infra.seeding import derive
from models import exports
from models.autoregressive.loong.extension import Cue, Extension, cue_in_force, extend
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.sampling import Sampling
from models.text.pieces import TextTokenizer
from models.tokenizer.model import VideoTokenizer
from ray_jobs import video_table
from ray_jobs.prompts import Prompt, over_time, schedule
from ray_jobs.video_table import Row, record


class GenerateConfig(JobConfig):
    """Settings of `generate`."""

    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    """Each a text, or {over_time: [{text, from_s}, ...]}."""
    videos_per_prompt: Annotated[int, Field(ge=1)] = 1
    videos_at_once: Annotated[int, Field(ge=1)] = 1
    """Videos that a worker makes side by side: more of them in the same time, for their memory
    (keys and values of a window, and its frames as they are decoded). A video is the one that it
    would be alone, but where rounding tips a near tie."""
    extension: Extension
    """How long the video is, and how one window leads to the next."""
    sampling: Sampling = Sampling()
    text_model: str | None = None
    """Path of a SentencePiece model; None: the 32,000-piece model of `mistral-common`."""


class Models:
    """Holds both models and makes videos, some side by side, in an actor.

    Args:
        config: of the job; of its settings, threads and text model.
        tokenizer: URI of the artifact.
        autoregressive: URI of the artifact.
    """

    def __init__(self, config: GenerateConfig, tokenizer: str, autoregressive: str) -> None:
        """Load the models."""
        torch.set_num_threads(max(1, int(config.resources.cpus_per_worker)))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = cast(VideoTokenizer, exports.load(tokenizer, device))
        self._model = cast(LongtakeLlama, exports.load(autoregressive, device))
        self._text = TextTokenizer(config.text_model)
        trained = storage.read_json(storage.join(autoregressive, "summary.json"))
        self._fps = float(trained["fps"])
        self._trained_frames = int(trained["trained_frames"])
        self._prints = {
            "tokenizer_fingerprint": artifact.read(tokenizer).fingerprint,
            "autoregressive_fingerprint": artifact.read(autoregressive).fingerprint,
        }

    def make(self, rows: Sequence[Row], config: GenerateConfig, output: str) -> int:
        """Generate, write the videos, then the records that say they are whole; return how many."""
        begun_at = time.monotonic()
        model = self._model
        shape = self._tokenizer.config
        latent = (shape.height_px // 8, shape.width_px // 8)
        total = config.extension.video_tokens(latent[0] * latent[1])
        notes = self._notes(rows[0], config) if len(rows) == 1 else None
        name = " to ".join(dict.fromkeys((rows[0]["video_id"], rows[-1]["video_id"])))
        window = 0
        drifts: list[list[float]] = [[] for _ in rows]
        with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
            films = [Path(folder, f"{row['video_id']}.mp4") for row in rows]
            with ExitStack() as open_, Progress(total, f"generate {name}", "tokens") as bar:
                size = (self._fps, shape.width_px, shape.height_px)
                movies = [open_.enter_context(Mp4Writer(film, *size)) for film in films]
                made = extend(
                    model,
                    self._tokenizer,
                    [self._cues(row) for row in rows],
                    extension=config.extension,
                    height=latent[0],
                    width=latent[1],
                    sampling=config.sampling,
                    seeds=[row["seed"] for row in rows],
                    on_token=lambda _: bar.advance(note=notes[window] if notes else ""),
                )
                for chunk in made:
                    if chunk.join_colour_drift_B is not None:
                        for drift, value in zip(drifts, chunk.join_colour_drift_B, strict=True):
                            drift.append(round(value.item(), 3))
                    for movie, frames in zip(movies, chunk.frames_BFHWC.numpy(), strict=True):
                        for frame in frames:
                            movie.write(frame)
                    window += 1
            for film in films:
                storage.write_bytes(storage.join(output, "videos", film.name), film.read_bytes())
        seconds = (time.monotonic() - begun_at) / len(rows)
        for row, drift in zip(rows, drifts, strict=True):
            said = self._record(row, config, drift, seconds)
            storage.write_json(record(output, row["video_id"]), said)
        return len(rows)

    def _cues(self, row: Row) -> list[Cue]:
        most = self._model.config.max_text_tokens
        return [
            Cue(self._text.encode(prompt["text"], most), round(prompt["from_s"] * self._fps))
            for prompt in row["prompts"]
        ]

    def _notes(self, row: Row, config: GenerateConfig) -> list[str] | None:
        """Return the text in force in each window, where a video has several."""
        if len(row["prompts"]) == 1:
            return None
        starts = [round(prompt["from_s"] * self._fps) for prompt in row["prompts"]]
        texts = [prompt["text"] for prompt in row["prompts"]]
        return [texts[cue_in_force(starts, first)] for first in config.extension.first_frames]

    def _record(
        self, row: Row, config: GenerateConfig, drift: list[float], seconds: float
    ) -> dict[str, Any]:
        shape = self._tokenizer.config
        return {
            **row,
            **self._prints,
            "file": f"videos/{row['video_id']}.mp4",
            "frames": config.extension.total_frames,
            "fps": self._fps,
            "height": shape.height_px,
            "width": shape.width_px,
            "joins": list(config.extension.joins),
            "join_colour_drift": drift,
            "trained_frames": self._trained_frames,
            "top_k": config.sampling.top_k,
            "temperature": config.sampling.temperature,
            "guidance_scale": config.sampling.guidance_scale,
            "reencode_frames": config.extension.reencode_frames,
            "strategy": config.extension.strategy,
            "match_colour": config.extension.match_colour,
            "seconds": round(seconds, 2),
        }


class Generator(Models):
    """The same for one job, as Ray Data maps rows."""

    def __init__(self, config: GenerateConfig, tokenizer: str, autoregressive: str, output: str):
        """Load the models."""
        super().__init__(config, tokenizer, autoregressive)
        self._config, self._output = config, output

    def __call__(self, row: Row) -> Row:
        """Make the videos of a group, by its number."""
        return {
            "videos": self.make(_groups(self._config)[row["group"]], self._config, self._output)
        }


def plan(config: GenerateConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    _, autoregressive = sources(config)
    extension = config.extension
    at_once = f", {config.videos_at_once} at once" if config.videos_at_once > 1 else ""
    lines = [f"{len(_videos(config))} videos of {extension.total_frames} frames{at_once}"]
    lines.append(
        f"{len(extension.joins)} joins: windows of {extension.window_frames} frames, the last "
        f"{extension.reencode_frames} "
        + ("re-encoded" if extension.strategy == "re-encode" else "kept as their tokens")
    )
    trained = storage.read_json(storage.join(autoregressive, "summary.json"))
    return [*lines, *schedule(config.prompts, extension, float(trained["fps"]))]


def run(
    config: GenerateConfig, output: Output, actors: Sequence[ActorHandle] = ()
) -> dict[str, Any]:
    """Generate the videos that are missing and return the summary.

    Args:
        config: of the job.
        output: of the job.
        actors: of :class:`Models` that are there already; none starts the job's own.
    """
    videos, groups = _videos(config), _groups(config)
    missing = _missing(config, output.uri)
    done = len(videos) - sum(len(groups[number]) for number in missing)
    with Progress(len(videos), "generate", "videos", done) as bar:
        made: Any = ()
        if missing and actors:
            made = ActorPool(list(actors)).map_unordered(
                lambda actor, number: actor.make.remote(groups[number], config, output.uri), missing
            )
        elif missing:
            made = _by_ray_data(config, output, missing)
        for count in made:
            bar.advance(count)
    rows = [storage.read_json(record(output.uri, video["video_id"])) for video in videos]
    video_table.write(output.uri, rows)
    frames = sum(row["frames"] for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    return {
        "videos": len(rows),
        "frames": frames,
        "joins_per_video": len(config.extension.joins),
        "frames_per_second": round(frames / max(seconds, 1e-9), 3),
    }


def _by_ray_data(config: GenerateConfig, output: Output, missing: list[int]) -> Iterator[int]:
    resources = config.resources
    numbers = [{"group": number} for number in missing]
    made = ray.data.from_items(numbers, override_num_blocks=len(missing)).map(
        Generator,  # pyright: ignore[reportArgumentType]: a class, built once an actor
        fn_constructor_args=(config, *sources(config), output.uri),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=min(resources.workers, len(missing))
        ),
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker or None,
    )
    return (row["videos"] for row in made.iter_rows())


def _groups(config: GenerateConfig) -> list[tuple[Row, ...]]:
    """Return the videos that are made side by side."""
    videos, size = _videos(config), config.videos_at_once
    return [tuple(videos[first : first + size]) for first in range(0, len(videos), size)]


def _missing(config: GenerateConfig, output: str) -> list[int]:
    """Return the numbers of the groups to make: whole, so that a video has the same beside it."""
    return [
        number
        for number, rows in enumerate(_groups(config))
        if not all(storage.exists(record(output, row["video_id"])) for row in rows)
    ]


def _videos(config: GenerateConfig) -> list[Row]:
    pairs = [(p, n) for p in range(len(config.prompts)) for n in range(config.videos_per_prompt)]
    return [
        {
            "video_id": f"{number:05d}",
            "prompt": " / ".join(text.text for text in over_time(config.prompts[prompt])),
            "prompts": [text.model_dump() for text in over_time(config.prompts[prompt])],
            "seed": derive(config.seed, "video", prompt, copy),
        }
        for number, (prompt, copy) in enumerate(pairs)
    ]


def sources(config: GenerateConfig) -> tuple[str, str]:
    """Return the URIs of the tokenizer and of the autoregressive model, which go together.

    Raises:
        UserError: they are something else, or the model has not been trained on such codes.
    """
    kinds = {artifact.read(uri, ("tokenizer", "autoregressive")).kind: uri for uri in config.input}
    if len(config.input) != 2 or len(kinds) != 2:
        raise UserError(
            f"input: {', '.join(config.input)}; allowed are one artifact of kind tokenizer and "
            "one of kind autoregressive"
        )
    made_for = storage.read_json(storage.join(kinds["autoregressive"], "summary.json"))
    fingerprint = artifact.read(kinds["tokenizer"]).fingerprint
    if made_for["tokenizer_fingerprint"] != fingerprint:
        raise UserError(
            f"input {kinds['autoregressive']}: trained on codes of tokenizer "
            f"{made_for['tokenizer_fingerprint']}, not of {kinds['tokenizer']} ({fingerprint})"
        )
    return kinds["tokenizer"], kinds["autoregressive"]


JOB = Job("generate", "videos", GenerateConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
