"""Decoding of the frames that models look at, from the kept clips of a clip table's file."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits
from data_prep.stills import stills
from infra import parquet, storage
from infra.config import Section
from infra.errors import UserError, one_line
from ray_jobs.scoring.rows import Row, clips_in_a_row

_CLIP = ("clip_id", "start_s", "end_s", "status")


class FramesConfig(Section):
    """Which frames of a clip the models are shown."""

    per_clip: Annotated[int, Field(ge=1, le=16)] = 3
    """Frames of a clip, evenly spaced; of an image it is the one there is."""
    long_side_px: Annotated[int, Field(ge=64, le=1024)] = 640
    """They are scaled down to at most this."""


def rows_of_file(source: str, frames: FramesConfig, limits: DecodeLimits) -> Iterator[Row]:
    """Yield the kept clips of a file with their frames, a few clips of one video at a time.

    A clip that cannot be read says why, and has no frames.

    Args:
        source: a file of a clip table.
        frames: which to take.
        limits: of reading one video.

    Raises:
        Unavailable: storage does not answer, which is no verdict on any clip.
    """
    columns = ["uri", "caption", *(f"clips.list.element.{name}" for name in _CLIP)]
    with storage.open_input(source) as file:
        for batch in parquet.batches(pq.ParquetFile(file), 1024, columns):
            for video in batch.to_pylist():
                kept = [clip for clip in video["clips"] if clip["status"] == "kept"]
                if kept:
                    yield from _of_video(video, kept, frames, limits)


def _of_video(
    video: dict[str, Any], clips: list[dict[str, Any]], frames: FramesConfig, limits: DecodeLimits
) -> Iterator[Row]:
    size = clips_in_a_row(frames.per_clip, frames.long_side_px)
    rows = [Row(video["caption"], clips[at : at + size]) for at in range(0, len(clips), size)]
    done = 0
    try:
        with storage.local_copy(video["uri"]) as path, Decoder(path, limits) as decoder:
            for row in rows:
                yield _filled(row, decoder, frames)
                done += 1
    except UserError as error:  # the video is not there any more; an outage is no UserError
        for row in rows[done:]:
            failed = {clip["clip_id"]: one_line(error) for clip in row.clips}
            yield replace(row, counts=[0] * len(row.clips), failed=failed)


def _filled(row: Row, decoder: Decoder, frames: FramesConfig) -> Row:
    found: list[np.ndarray] = []
    counts, failed = [], {}
    for clip in row.clips:
        span = (clip["start_s"], clip["end_s"])
        try:
            found.append(stills(decoder, *span, frames.per_clip, frames.long_side_px))
            counts.append(len(found[-1]))
        except DecodeError as error:
            counts.append(0)
            failed[clip["clip_id"]] = one_line(error)
    pictures = np.concatenate(found) if found else row.frames_NHWC
    return replace(row, frames_NHWC=pictures, counts=counts, failed=failed)
