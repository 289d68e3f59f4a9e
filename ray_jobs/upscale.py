"""Enlarge finished videos, frame by frame (Loong, section 3.3, super-resolution).

input: a finished artifact of kind `videos`. output: the same kind, with the same table but for
sizes; number, rate and times of the frames stay. A video that cannot be read is left out, and
named in `summary.json` and below `failed/`.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pyarrow as pa
import ray
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
from ray_jobs import unit_tables, units, video_table
from ray_jobs.part_files import failures, write_failures
from ray_jobs.units import Factory, Parts, Receipt
from ray_jobs.video_table import Row

Record = dict[str, Any]
"""Of one video: its rows of the table, none where it could not be read, and what it took."""

CHUNK_BYTES = 64 << 20
"""About how much enlarged film an actor holds at once."""
MOST_CHUNK_FRAMES = 32
MOST_NAMED = 1000
"""Failed videos that the summary names; `failed/` has all."""
UNITS = "units"


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
    """Enlarges the video of a part; a worker of :func:`ray_jobs.units.run`.

    Args:
        scale: pixels in width and height that one becomes.
        upscaler: the model.
        decode: what reading one video may cost.
        source_uri: the artifact with the videos.
        units_uri: of the table with a video a part.
        parts: of the job.
        gpus: whether the worker has one.
    """

    def __init__(
        self,
        scale: int,
        upscaler: UpscalerConfig,
        decode: DecodeLimits,
        source_uri: str,
        units_uri: str,
        parts: Parts,
        gpus: bool = False,
    ) -> None:
        """Load the upscaler."""
        self._scale, self._decode, self._source = scale, decode, source_uri
        self._read, self._parts = unit_tables.Reader(units_uri), parts
        gpu = int(ray.get_gpu_ids()[0]) if gpus else None
        self._upscaler = upscale.build(upscaler, scale, gpu)

    def __call__(self, part: int) -> Receipt:
        """Write a part's video and its record, or why it is left out."""
        (row,) = map(video_table.from_columns, self._read(part).to_pylist())
        record: Record = {"rows": [], "upscale_seconds": 0.0}
        uri = video_table.film_uri(self._source, row)  # a link that leads out stops the job
        try:
            record = self._make(row, uri)
        except storage.Unavailable:  # no verdict on the video
            raise
        except Exception as error:  # one video, whatever is wrong with it
            failure = {"video_id": row["video_id"], "reason": one_line(error)}
            logger.warning(f"upscale: {row['file']} left out: {failure['reason']}")
            write_failures(self._parts.output_uri, part, [failure])
        storage.write_json(self._parts.uri(part), record)
        return {"rows": len(record["rows"]), "failed": 1 - len(record["rows"])}

    def _make(self, row: Row, uri: str) -> Record:
        begun_at = time.monotonic()
        video_id = row["video_id"]
        width, height = row["width"] * self._scale, row["height"] * self._scale
        with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
            film = Path(folder) / f"{video_id}.mp4"
            with (
                Progress(row["frames"], f"upscale {video_id}", "frames") as bar,
                Mp4Writer(film, row["fps"], width, height) as movie,
            ):
                for frames_THWC in self._frames(row, uri):
                    for frame in self._upscaler(frames_THWC):
                        movie.write(frame)
                    bar.advance(len(frames_THWC))
                if movie.frames != row["frames"]:
                    raise DecodeError("truncated", f"{movie.frames} of {row['frames']} frames")
            file = video_table.film_file(video_id)
            storage.write_bytes(storage.join(self._parts.output_uri, file), film.read_bytes())
        made = {**row, "file": file, "height": height, "width": width}
        return {"rows": [made], "upscale_seconds": round(time.monotonic() - begun_at, 2)}

    def _frames(self, row: Row, uri: str) -> Iterator[np.ndarray]:
        frame_bytes = row["width"] * row["height"] * 3 * self._scale**2
        count = max(1, min(MOST_CHUNK_FRAMES, CHUNK_BYTES // frame_bytes))
        with storage.local_copy(uri) as path, Decoder(path, self._decode) as decoder:
            for chunk in decoder.frames(size=(row["width"], row["height"]), chunk_frames=count):
                yield chunk.frames_THWC


def plan(config: UpscaleConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    upscale.check(config.upscaler)
    videos = frames = 0
    sizes: set[tuple[int, int]] = set()
    for row in video_table.read(_source(config)):
        videos, frames = videos + 1, frames + row["frames"]
        sizes.add((row["width"], row["height"]))
    if not videos:
        raise UserError(f"input {config.input[0]}: holds no video")
    resources = config.resources
    return [
        f"{videos} videos, {frames} frames",
        *(f"{w}x{h} → {w * config.scale}x{h * config.scale}" for w, h in sorted(sizes)),
        f"by {config.upscaler.kind}, {resources.workers} actors of "
        f"{resources.cpus_per_worker:g} CPUs, {resources.gpus_per_worker:g} GPUs",
    ]


def run(config: UpscaleConfig, output: Output) -> dict[str, Any]:
    """Enlarge the videos that are missing and return the summary."""
    planned = plan_parts(config, output.uri)
    parts = parts_of(output.uri, planned.parts)
    for _ in units.run(parts, factory(config, parts), config.resources):
        pass
    failed = list(islice(failures(output.uri), MOST_NAMED + 1))
    sums = {"frames": 0, "seconds": 0.0}

    def rows() -> Iterator[Row]:
        for part in range(parts.count):
            record = storage.read_json(parts.uri(part))
            sums["seconds"] += record["upscale_seconds"]
            for row in record["rows"]:
                sums["frames"] += row["frames"]
                yield row

    videos = video_table.write(output.uri, rows())
    if not videos:
        raise UserError(f"{config.input[0]}: no video could be read ({failed[0]['reason']})")
    return {
        "inputs": planned.units,
        "videos": videos,
        "failed_videos": planned.units - videos,
        "failed": failed[:MOST_NAMED],
        "frames": sums["frames"],
        "frames_per_second": round(sums["frames"] / max(sums["seconds"], 1e-9), 3),
    }


def plan_parts(config: UpscaleConfig, output_uri: str) -> unit_tables.Plan:
    """Return the parts of a run; at first it writes a table with a video a part."""
    units_uri = storage.join(output_uri, UNITS)
    if (planned := unit_tables.plan_of(units_uri)) is not None:
        return planned
    with unit_tables.Writer(units_uri, video_table.SCHEMA) as writer:
        for row in video_table.read(_source(config)):
            writer.add(pa.Table.from_pylist([video_table.as_columns(row)], video_table.SCHEMA))
    made = unit_tables.plan_of(units_uri)
    assert made is not None, "the writer has written its plan"
    return made


def parts_of(output_uri: str, count: int) -> Parts:
    """Return a video a part, whose main file is its record."""
    return Parts(output_uri, video_table.FOLDER, count, ".json", "videos")


def factory(config: UpscaleConfig, parts: Parts) -> Factory:
    """Return how a worker is built."""
    arguments = {
        "scale": config.scale,
        "upscaler": config.upscaler,
        "decode": config.decode,
        "source_uri": config.input[0],
        "units_uri": storage.join(parts.output_uri, UNITS),
        "parts": parts,
        "gpus": config.resources.gpus_per_worker > 0,
    }
    return Factory(Upscaling, arguments)


def _source(config: UpscaleConfig) -> str:
    if len(config.input) != 1:
        raise UserError(f"input: {', '.join(config.input)}; allowed is one artifact of kind videos")
    artifact.read(config.input[0], ("videos",))
    return config.input[0]


JOB = Job("upscale", "videos", UpscaleConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
