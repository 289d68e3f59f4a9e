"""Planning of shards: input files cut into parts by the bytes that their clips will become.

Two passes, and no clip on the driver::

    input files ─survey (Ray tasks)─▶ bytes a file ─prefix sums─▶ part numbers ─▶ units/…
    part number ─units/…─▶ its input files ─▶ its clips

A unit is an input file and how many bytes come before it. What lies in a part follows from that
alone, so a worker reads the files that its part touches and takes its own clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from data_prep.index import Index
from data_prep.sampling import (
    FrameSettings,
    HeldOut,
    WindowConfig,
    frames_in,
    nearest,
    part_of,
    position,
)
from infra import parquet, storage
from infra.errors import UserError
from models.codec import Channels, CodecSpec
from ray_jobs import unit_tables
from ray_jobs.sharding.tasks import in_order
from ray_jobs.unit_tables import Plan

UNITS = "units"
FILES_A_TASK = 32
ROW_BYTES = 512
"""What a row takes beside its windows, about."""
SCHEMA = pa.schema(
    [
        pa.field("file", pa.int64(), nullable=False),  # its number among the input's
        pa.field("path", pa.string(), nullable=False),  # below the input
        pa.field("begin", pa.int64(), nullable=False),  # bytes before it
    ]
)
_FIELDS = ("clip_id", "start_s", "end_s", "status", "scores.motion", "scores.aspect_ratio")
_COLUMNS = [
    *("video_id", "uri", "caption", "status"),
    *(f"clips.list.element.{name}" for name in _FIELDS),  # thumbnails stay there
]


@dataclass(frozen=True)
class Clip:
    """A kept clip of a clip table, and how it is to be decoded."""

    clip_id: str
    video_id: str
    uri: str
    caption: str | None
    start_s: float
    end_s: float
    motion: float | None
    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Estimate:
    """How many bytes a clip becomes: its frames, or its windows as a codec makes them."""

    windows: tuple[WindowConfig, ...] = ()
    codec: CodecSpec | None = None

    def __call__(self, frames: int, height: int, width: int) -> int:
        """Return the bytes of a clip's row."""
        if self.codec is None:
            return ROW_BYTES + frames * height * width * 3
        latent = self.codec.latent
        each = np.dtype(latent.dtype).itemsize
        each *= latent.channels if isinstance(latent, Channels) else 1
        total = ROW_BYTES
        for window in self.windows:
            count = max(0, (frames - window.frames) // window.stride + 1)
            shape = self.codec.latent_shape(window.frames, height, width)
            total += count * each * int(np.prod(shape))
        return total


def clips_of(table_uri: str, settings: FrameSettings) -> Iterator[Clip]:
    """Yield the kept clips of one file of a clip table, in order."""
    with storage.open_input(table_uri) as source:
        for batch in parquet.batches(pq.ParquetFile(source), 256, _COLUMNS):
            for video in batch.to_pylist():
                if video["status"] != "kept":
                    continue
                for clip in video["clips"]:
                    if clip["status"] == "kept":
                        yield _clip(video, clip, settings)


def of_clips(
    output_uri: str, table_uri: str, settings: FrameSettings, estimate: Estimate, shard_bytes: float
) -> Plan:
    """Plan the parts of a clip table; a plan that is there already is read.

    Raises:
        UserError: no clip was kept.
    """
    folder = storage.join(output_uri, UNITS)
    if plan := unit_tables.plan_of(folder):
        return plan
    files = storage.list_files(storage.join(table_uri, "clips"), (".parquet",))
    tasks = (
        _survey.remote(files[first : first + FILES_A_TASK], settings, estimate)
        for first in range(0, len(files), FILES_A_TASK)
    )
    sizes, clips, lowest = [], 0, list[str]()
    for found in in_order(tasks):
        sizes += found["sizes"]
        clips += found["clips"]
        lowest = [min([*lowest, *found["lowest"]], key=position)] if found["lowest"] else lowest
    if not clips:
        raise UserError(f"input {table_uri}: no clip was kept; see its summary.json")
    held = HeldOut.of(settings.validation_share, clips, lowest[0])
    facts = {"clips": clips, "held_out_only": held.only}
    return _write(folder, table_uri, files, sizes, shard_bytes, facts)


def of_frames(output_uri: str, frames: Index, estimate: Estimate, shard_bytes: float) -> Plan:
    """Plan the parts of shards of frames: whole files, of which none shares a clip with another."""
    folder = storage.join(output_uri, UNITS)
    if plan := unit_tables.plan_of(folder):
        return plan
    groups = [len(row) for row in frames.files["row_groups"]]
    file_of_group = np.repeat(np.arange(len(groups)), groups)
    sizes = np.zeros(len(groups), np.int64)
    for shape, (of_groups, counts) in frames.counts().items():
        np.add.at(sizes, file_of_group[of_groups], counts * estimate(*shape))
    paths = frames.files["path"].to_pylist()
    total, begin = int(sizes.sum()), 0
    parts = max(1, round(total / shard_bytes))
    held: dict[int, list[dict[str, Any]]] = {}
    for number, (path, size) in enumerate(zip(paths, sizes.tolist(), strict=True)):
        part = min(part_of(begin, size, max(total, 1), parts), parts - 1)
        held.setdefault(part, []).append({"file": number, "path": path, "begin": begin})
        begin += size
    with unit_tables.Writer(folder, SCHEMA) as writer:
        writer.facts = {"bytes": total}
        for _, units in sorted(held.items()):
            writer.add(pa.Table.from_pylist(units, SCHEMA))
    return _written(folder)


class PartReader:
    """Finds what a part has to do, by its number.

    Args:
        output_uri: of the running job.
        input_uri: the artifact that was planned for.
    """

    def __init__(self, output_uri: str, input_uri: str) -> None:
        folder = storage.join(output_uri, UNITS)
        self._input, self._units = input_uri, unit_tables.Reader(folder)
        self.plan = _written(folder)

    def files(self, part: int) -> list[int]:
        """Return the numbers of the input files of a part."""
        return self._units(part)["file"].to_pylist()

    def clips(self, part: int, settings: FrameSettings, estimate: Estimate) -> list[Clip]:
        """Return the clips of a part, in order."""
        total, found = self.plan.facts["bytes"], []
        for unit in self._units(part).to_pylist():
            begin = unit["begin"]
            for clip in clips_of(storage.join(self._input, unit["path"]), settings):
                size = estimate(clip.frames, clip.height, clip.width)
                if part_of(begin, size, total, self.plan.parts) == part:
                    found.append(clip)
                begin += size
        return found


def _clip(video: dict[str, Any], clip: dict[str, Any], settings: FrameSettings) -> Clip:
    size = nearest(clip["scores"]["aspect_ratio"], settings.sizes)
    return Clip(
        **{key: video[key] for key in ("video_id", "uri", "caption")},
        **{key: clip[key] for key in ("clip_id", "start_s", "end_s")},
        motion=clip["scores"]["motion"],
        frames=frames_in(clip["start_s"], clip["end_s"], settings.fps),
        height=size.height_px,
        width=size.width_px,
    )


@ray.remote(num_cpus=1)
def _survey(files: list[str], settings: FrameSettings, estimate: Estimate) -> dict[str, Any]:
    """Return the bytes that each file's clips become, their number, and the lowest position's."""
    sizes, clips, lowest = [], 0, None
    for file in files:
        size = 0
        for clip in clips_of(file, settings):
            size += estimate(clip.frames, clip.height, clip.width)
            clips += 1
            if lowest is None or position(clip.clip_id) < position(lowest):
                lowest = clip.clip_id
        sizes.append(size)
    return {"sizes": sizes, "clips": clips, "lowest": [] if lowest is None else [lowest]}


def _write(
    folder: str,
    input_uri: str,
    files: list[str],
    sizes: list[int],
    shard_bytes: float,
    facts: dict[str, Any],
) -> Plan:
    """Write which files each part touches."""
    ends = np.cumsum(np.array(sizes, np.int64))
    begins, total = ends - sizes, int(ends[-1])
    parts = max(1, round(total / shard_bytes))
    with unit_tables.Writer(folder, SCHEMA) as writer:
        writer.facts = {**facts, "bytes": total}
        for part in range(parts):  # a file is touched where a clip's middle may lie in the part
            low, high = part * total // parts, -(-(part + 1) * total // parts)
            first = int(np.searchsorted(ends, low, side="right"))
            last = int(np.searchsorted(begins, high, side="left"))
            units = [
                {"file": n, "path": files[n][len(input_uri) + 1 :], "begin": int(begins[n])}
                for n in range(first, last)
                if sizes[n]
            ]
            writer.add(pa.Table.from_pylist(units, SCHEMA))
    return _written(folder)


def _written(folder: str) -> Plan:
    plan = unit_tables.plan_of(folder)
    assert plan is not None, f"{folder} was not planned"
    return plan
