"""Write the longest held-out clips as videos, to compare generated ones with.

input: a finished artifact of kind `frames`. output: kind `videos`, of the clips' own size and rate,
so that `evaluate` measures them, and a report shows them, as it does generated videos.
"""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data_prep.encode import Mp4Writer
from data_prep.index import Index
from data_prep.sample import Shape
from data_prep.sampling import VALIDATION
from infra import artifact, storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from infra.progress import Progress
from ray_jobs import video_table
from ray_jobs.video_table import HELD_OUT, Row


class HeldOutConfig(JobConfig):
    """Settings of `held_out`."""

    videos: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many clips, the longest first; fewer where no more are held out."""
    max_frames: Annotated[int, Field(ge=2)] | None = None
    """Where longer clips are cut, such as the length of generated videos; None: nowhere."""


def plan(config: HeldOutConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    lengths = [shape[0] for shape, *_ in _chosen(_index(config), config)]
    longest, shortest = (
        min(length, config.max_frames or length) for length in (lengths[0], lengths[-1])
    )
    return [f"{len(lengths)} held-out clips of {shortest} to {longest} frames"]


def run(config: HeldOutConfig, output: Output) -> dict[str, Any]:
    """Write the films and their table; returns the summary."""
    index = _index(config)
    chosen, frames = _chosen(index, config), 0

    def rows() -> Iterator[Row]:
        nonlocal frames
        with Progress(len(chosen), "held_out", "clips") as bar:
            for number, (clip, window_THWC) in enumerate(_windows(index, chosen)):
                made = window_THWC[: config.max_frames]
                frames += len(made)
                yield _write(output, f"{number:09d}", clip, made)
                bar.advance(1)

    return {"videos": video_table.write(output.uri, rows()), "frames": frames}


def _write(output: Output, video_id: str, clip: dict[str, Any], frames_THWC: np.ndarray) -> Row:
    count, height, width, _ = frames_THWC.shape
    file = video_table.film_file(video_id)
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        film = Path(folder, "film.mp4")
        with Mp4Writer(film, clip["fps"], width, height) as movie:
            for frame_HWC in frames_THWC:
                movie.write(frame_HWC)
        storage.write_bytes(output.path(file), film.read_bytes())
    return {
        "video_id": video_id,
        "prompt": clip["caption"],
        "prompts": [],
        "file": file,
        "frames": count,
        "fps": clip["fps"],
        "height": height,
        "width": width,
        "joins": [],
        "join_colour_drift": [],
        "settings": {"kind": HELD_OUT, "clip_id": clip["clip_id"], "video_id": clip["video_id"]},
    }


def _index(config: HeldOutConfig) -> Index:
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact of kind frames")
    artifact.read(config.input[0], ("frames",))
    return Index(config.input[0])


def _chosen(index: Index, config: HeldOutConfig) -> list[tuple[Shape, int, int]]:
    """Return shape, row group and place there of the longest held-out windows, in that order.

    The place counts the held-out windows of that shape within the row group.
    """
    longest_first = sorted(index.counts(VALIDATION).items(), key=lambda item: -item[0][0])
    windows = (
        (shape, int(group), place)
        for shape, (groups, counts) in longest_first
        if shape[0] > 1 and shape[1] % 2 == shape[2] % 2 == 0
        for group, count in zip(groups, counts, strict=True)
        for place in range(int(count))
    )
    chosen = list(islice(windows, config.videos))
    if not chosen:
        raise UserError(
            f"input {config.input[0]}: no clip of even size and two frames is held out; "
            "raise validation_share, or prepare more videos"
        )
    return chosen


def _windows(
    index: Index, chosen: list[tuple[Shape, int, int]]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield what is known of each chosen clip, and its frames (T, H, W, 3) uint8."""
    for shape, group, place in chosen:
        table = index.read(group)
        rows = table.select(["clip_id", "video_id", "caption", "fps", "split"]).to_pylist()
        held = [
            (row, window)
            for row, windows in zip(rows, table["windows"], strict=True)
            if row["split"] == VALIDATION
            for window in windows
            if tuple(window["shape"].as_py()[:3]) == shape
        ]
        row, window = held[place]
        yield row, index.spec.window(window["data"].as_buffer(), window["shape"].as_py())


JOB = Job("held_out", "videos", HeldOutConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
