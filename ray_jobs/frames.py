"""Decode the kept clips of a clip table into shards of frames at model resolution and rate.

input: a finished artifact of kind `clips`. output: kind `frames`: shards (uint8 RGB, one window a
clip), `index.arrow`, and in `failed/` what could not be decoded. Codecs train on them, and
`tokenize` reads them in place of the film.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from data_prep.sampling import FrameSettings
from data_prep.shards import Row, ShardSpec
from infra import artifact
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from ray_jobs import units
from ray_jobs.sharding import parts, plan
from ray_jobs.sharding.plan import Estimate
from ray_jobs.sharding.source import Failure, FilmSource

SPEC = ShardSpec("frames")
SHARD_MB = Annotated[float, Field(gt=0)]


class FramesConfig(JobConfig, FrameSettings):
    """Settings of `frames`."""

    shard_mb: SHARD_MB = 128.0
    """Megabytes of a shard before compression, about. A shard is also what a worker does at a time
    and what a kill may cost, so a small corpus wants smaller ones."""


class FrameMaker:
    """Makes rows of decoded clips.

    Args:
        source: of frames.
    """

    spec = SPEC

    def __init__(self, source: FilmSource) -> None:
        self._source = source
        self.notes = Counter[str]()

    def rows(self, part: int) -> Iterator[Row | Failure]:
        """Yield a row a clip, several of one that is long."""
        for piece in self._source.pieces(part):
            if isinstance(piece, Failure):
                yield piece
                continue
            frames = piece.frames_THWC
            window = {
                "frames": len(frames),
                "start_frame": piece.start_frame,
                "shape": list(frames.shape),
                "data": frames.tobytes(),
            }
            yield {**piece.about, "frames": len(frames), "text": None, "windows": [window]}


def settings_of(config: FrameSettings) -> FrameSettings:
    """Return the settings of decoding alone, for the workers."""
    return FrameSettings(**{key: getattr(config, key) for key in FrameSettings.model_fields})


def plan_lines(config: FramesConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact of kind clips")
    clips = artifact.read(config.input[0], ("clips",)).counts.get("clips", 0)
    return [f"{clips} clips of {config.input[0]} → frames", decoding(config)]


def decoding(settings: FrameSettings) -> str:
    """Return a line about how clips are decoded."""
    sizes = " or ".join(f"{size.width_px}x{size.height_px}" for size in settings.sizes)
    held = f"; {settings.validation_share:.1%} of the clips held out"
    return f"decode to {sizes} at {settings.fps:g} frames/s{held}"


def run(config: FramesConfig, output: Output) -> dict[str, Any]:
    """Write the shards and return the summary."""
    settings, estimate = settings_of(config), Estimate()
    made = plan.of_clips(output.uri, config.input[0], settings, estimate, config.shard_mb * 1e6)
    shards = units.Parts(output.uri, "frames", made.parts)
    source = FilmSource(output.uri, config.input[0], settings, estimate)
    factory = units.Factory(_writer, {"shards": shards, "source": source})
    for _ in units.run(shards, factory, config.resources):
        pass
    account = parts.finish(shards)
    return {**account.summary(), "fps": config.fps, "sizes": dict(sorted(account.sizes.items()))}


def _writer(shards: units.Parts, source: FilmSource) -> parts.PartWriter:
    return parts.PartWriter(shards, FrameMaker(source))


JOB = Job("frames", "frames", FramesConfig, plan_lines, run)

if __name__ == "__main__":
    main(JOB)
