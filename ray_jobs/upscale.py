"""Enlarge finished videos, frame by frame (Loong, section 3.3, super-resolution).

input: a finished artifact of kind `videos`. output: the same kind, with the same table but for
sizes; number, rate and times of the frames stay. A video that cannot be read is left out, and
named in `summary.json`.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import ray
import ray.data
from pydantic import Field, model_validator

from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits
from data_prep.encode import Mp4Writer
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError, one_line
from infra.job import Job, main
from infra.log import logger
from infra.progress import Progress
from models import upscale
from models.upscale.config import RealesrganConfig, UpscalerConfig, check_scale
from ray_jobs import video_table
from ray_jobs.video_table import Row

CHUNK_BYTES = 64 << 20
"""About how much enlarged film an actor holds at once."""
MOST_CHUNK_FRAMES = 32


class UpscaleConfig(JobConfig):
    """Settings of `upscale`."""

    scale: Annotated[int, Field(ge=2, le=8)] = 4
    """How many pixels in width and height one becomes."""
    upscaler: UpscalerConfig = Field(default_factory=RealesrganConfig)
    """`realesrgan` (extra `upscale`) or `lanczos`: a kind, or a map of it and its keys."""
    decode: DecodeLimits = DecodeLimits()
    """What reading one video may cost."""

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        check_scale(self.upscaler, self.scale)
        return self


class Upscaling:
    """Holds an upscaler and enlarges one video at a time, in an actor."""

    def __init__(self, config: UpscaleConfig, source: str, output: str) -> None:
        self._config, self._source, self._output = config, source, output
        self._upscaler: upscale.Upscaler | None = None

    def __call__(self, task: Row) -> Row:
        """Enlarge the video of a row of the table, given as JSON; say what came of it."""
        row = json.loads(task["row"])
        result = {"row": task["row"], "stop": "", "failed": ""}
        try:
            self._upscaler = self._upscaler or self._build()
        except (UserError, storage.Unavailable) as error:
            return {**result, "stop": str(error)}
        try:
            self._make(row, self._upscaler)
        except storage.Unavailable as error:  # no verdict on the video
            return {**result, "stop": f"{error}; the same command goes on from here"}
        except Exception as error:  # one video, whatever is wrong with it
            return {**result, "failed": one_line(error)}
        return result

    def _build(self) -> upscale.Upscaler:
        config = self._config
        gpu = int(ray.get_gpu_ids()[0]) if config.resources.gpus_per_worker else None
        return upscale.build(config.upscaler, config.scale, gpu)

    def _make(self, row: Row, upscaler: upscale.Upscaler) -> None:
        begun_at = time.monotonic()
        video_id, scale = row["video_id"], self._config.scale
        width, height = row["width"] * scale, row["height"] * scale
        with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
            with (
                Progress(row["frames"], f"upscale {video_id}", "frames") as bar,
                Mp4Writer(Path(folder) / f"{video_id}.mp4", row["fps"], width, height) as movie,
            ):
                for frames_THWC in self._frames(row):
                    for frame in upscaler(frames_THWC):
                        movie.write(frame)
                    bar.advance(len(frames_THWC))
                if movie.frames != row["frames"]:
                    raise DecodeError("truncated", f"{movie.frames} of {row['frames']} frames")
            storage.upload_dir(folder, storage.join(self._output, "videos"))
        made = {**row, "file": f"videos/{video_id}.mp4", "height": height, "width": width}
        seconds = round(time.monotonic() - begun_at, 2)
        record = {"row": made, "upscale_seconds": seconds}
        storage.write_json(video_table.record(self._output, video_id), record)

    def _frames(self, row: Row) -> Iterator[np.ndarray]:
        frame_bytes = row["width"] * row["height"] * 3 * self._config.scale**2
        count = max(1, min(MOST_CHUNK_FRAMES, CHUNK_BYTES // frame_bytes))
        uri = storage.join(self._source, row["file"])
        with storage.local_copy(uri) as path, Decoder(path, self._config.decode) as decoder:
            for chunk in decoder.frames(size=(row["width"], row["height"]), chunk_frames=count):
                yield chunk.frames_THWC


def plan(config: UpscaleConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    rows = _rows(config)
    upscale.check(config.upscaler)
    sizes = sorted({(row["width"], row["height"]) for row in rows})
    resources = config.resources
    return [
        f"{len(rows)} videos, {sum(row['frames'] for row in rows)} frames",
        *(f"{w}x{h} → {w * config.scale}x{h * config.scale}" for w, h in sizes),
        f"by {config.upscaler.kind}, {resources.workers} actors of "
        f"{resources.cpus_per_worker:g} CPUs, {resources.gpus_per_worker:g} GPUs",
    ]


def run(config: UpscaleConfig, output: Output) -> dict[str, Any]:
    """Enlarge the videos that are missing and return the summary."""
    rows = _rows(config)
    there = {storage.name(uri) for uri in storage.list_files(output.path("videos"), (".json",))}
    missing = [row for row in rows if f"{row['video_id']}.json" not in there]
    failed: dict[str, str] = {}
    with Progress(len(rows), "upscale", "videos", len(rows) - len(missing)) as bar:
        for made in _by_ray_data(config, output, missing) if missing else ():
            if made["stop"]:
                raise UserError(made["stop"])
            if made["failed"]:
                row = json.loads(made["row"])
                failed[row["video_id"]] = made["failed"]
                logger.warning(f"upscale: {row['file']} left out: {made['failed']}")
            bar.advance(note=f"{len(failed)} failed")
    if len(failed) == len(rows):
        raise UserError(
            f"{config.input[0]}: no video could be read ({next(iter(failed.values()))})"
        )
    kept = [row["video_id"] for row in rows if row["video_id"] not in failed]
    records = [storage.read_json(video_table.record(output.uri, name)) for name in kept]
    video_table.write(output.uri, [record["row"] for record in records])
    frames = sum(record["row"]["frames"] for record in records)
    seconds = sum(record["upscale_seconds"] for record in records)
    return {
        "inputs": len(rows),
        "videos": len(records),
        "failed": [{"video_id": name, "reason": failed[name]} for name in sorted(failed)],
        "frames": frames,
        "frames_per_second": round(frames / max(seconds, 1e-9), 3),
    }


def _by_ray_data(config: UpscaleConfig, output: Output, rows: list[Row]) -> Iterator[Row]:
    resources = config.resources
    tasks = [{"row": json.dumps(row)} for row in rows]
    made = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
        Upscaling,  # pyright: ignore[reportArgumentType]: a class, built once an actor
        fn_constructor_args=(config, config.input[0], output.uri),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(resources.workers, len(tasks))),
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker or None,
    )
    return iter(made.iter_rows())


def _rows(config: UpscaleConfig) -> list[Row]:
    if len(config.input) != 1:
        raise UserError(f"input: {', '.join(config.input)}; allowed is one artifact of kind videos")
    artifact.read(config.input[0], ("videos",))
    if not (rows := video_table.read(config.input[0])):
        raise UserError(f"input {config.input[0]}: holds no video")
    return rows


JOB = Job("upscale", "videos", UpscaleConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
