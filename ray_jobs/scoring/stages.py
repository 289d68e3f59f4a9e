"""Scoring stages on the cluster: tasks decode frames, and each model has its pool of actors.

Models are imported where they are built, so that no process loads more than its stage needs.
"""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits
from data_prep.filters import aesthetic, safety, similarity, text
from data_prep.stills import stills
from infra import storage
from infra.errors import UserError, one_line
from ray_jobs.scoring.config import BatchedStage, ClipStage, Stage
from ray_jobs.scoring.rows import Row, from_arrow, to_arrow, with_scores

Pictures = list[np.ndarray]


def decode(
    batch: pa.Table, frames_per_clip: int, long_side_px: int, limits: DecodeLimits
) -> Iterator[pa.Table]:
    """Yield one row at a time of each video's clips, their frames decoded."""
    for unit in batch["unit"].to_pylist():
        yield from _of_video(json.loads(unit), frames_per_clip, long_side_px, limits)


def _of_video(
    unit: dict[str, Any], frames_per_clip: int, long_side_px: int, limits: DecodeLimits
) -> Iterator[pa.Table]:
    rows = [Row(**row) for row in unit["rows"]]
    done = 0
    try:
        with storage.local_copy(unit["uri"]) as path, Decoder(path, limits) as decoder:
            for row in rows:
                yield _filled(row, decoder, frames_per_clip, long_side_px)
                done += 1
    except UserError as error:  # storage's: the video is not there any more
        for row in rows[done:]:
            row.counts = [0] * len(row.clips)
            row.failed = {clip["clip_id"]: one_line(error) for clip in row.clips}
            yield to_arrow([(row, b"")])


def _filled(row: Row, decoder: Decoder, count: int, long_side_px: int) -> pa.Table:
    found: Pictures = []
    for clip in row.clips:
        try:
            found.append(stills(decoder, clip["start_s"], clip["end_s"], count, long_side_px))
            row.counts.append(len(found[-1]))
        except DecodeError as error:
            row.counts.append(0)
            row.failed[clip["clip_id"]] = one_line(error)
    frames = np.concatenate(found) if found else np.empty(row.shape, np.uint8)
    row.shape = frames.shape
    return to_arrow([(row, frames.tobytes())])


class SafetyActor:
    """Adds ``unsafe``."""

    def __init__(self, stage: BatchedStage) -> None:
        """Load the model."""
        from models.perception.unsafe import Unsafe

        self._model = Unsafe(stage.threads, stage.num_gpus > 0, stage.batch_frames)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the frames of all rows at once."""
        rows, frames = _unpacked(batch)
        found = iter(self._model.probabilities(list(chain(*frames))))
        for row, pictures in zip(rows, frames, strict=True):
            by_frame = [next(found) for _ in pictures]
            row.add("unsafe", [safety.score(part) for part in row.of_clips(by_frame)])
        return with_scores(batch, rows)


class TextActor:
    """Adds ``text_area``."""

    def __init__(self, stage: Stage) -> None:
        """Load the model."""
        from models.perception.text_boxes import TextBoxes

        self._model = TextBoxes(stage.threads, stage.num_gpus > 0)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the frames of all rows, one after the other: they have sizes of their own."""
        rows, frames = _unpacked(batch)
        for row, pictures in zip(rows, frames, strict=True):
            _, height, width, _ = row.shape
            areas = [text.area(boxes, width, height) for boxes in self._model.find(pictures)]
            row.add("text_area", [text.score(part) for part in row.of_clips(areas)])
        return with_scores(batch, rows)


class ClipActor:
    """Adds ``caption_similarity`` where there is a caption, and ``aesthetic`` with a head."""

    def __init__(self, stage: ClipStage) -> None:
        """Load the model."""
        import torch

        from models.perception.clip import Clip

        assert stage.weights is not None
        torch.set_num_threads(stage.threads)
        device = torch.device("cuda" if stage.num_gpus > 0 else "cpu")
        self._model = Clip(stage.weights, stage.head, device, stage.batch_frames)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the frames and captions of all rows at once."""
        rows, frames = _unpacked(batch)
        captions = sorted({row.caption for row in rows if row.caption})
        embedded = self._model.embed(list(chain(*frames)))
        ratings = self._model.ratings(embedded)
        said = dict(zip(captions, self._model.embed_texts(captions), strict=True))
        first = 0
        for row, pictures in zip(rows, frames, strict=True):
            here = slice(first, first + len(pictures))
            first += len(pictures)
            if row.caption:
                cosines = (embedded[here] @ said[row.caption]).tolist()
                found = [similarity.score(part) for part in row.of_clips(cosines)]
                row.add("caption_similarity", found)
            if ratings is not None:
                found = [aesthetic.score(part) for part in row.of_clips(ratings[here])]
                row.add("aesthetic", found)
        return with_scores(batch, rows)


ACTORS: dict[str, Any] = {"safety": SafetyActor, "text": TextActor, "clip": ClipActor}


def commit(batch: pa.Table, folder: str) -> pa.Table:
    """Write one file a row with its scores; return what was written."""
    rows, _ = _unpacked(batch)
    for row in rows:
        tree = {"scores": row.scores, "failed": row.failed}
        storage.write_json(storage.join(folder, f"{row.name}.json"), tree)
    return pa.table(
        {
            "clips": pa.array([len(row.clips) for row in rows], pa.int64()),
            "failed": pa.array([len(row.failed) for row in rows], pa.int64()),
        }
    )


def _unpacked(batch: pa.Table) -> tuple[list[Row], list[Pictures]]:
    pairs = list(from_arrow(batch))
    return [row for row, _ in pairs], [list(frames) for _, frames in pairs]
