"""Frames of clips as they come: decoded from film, or read from shards of frames.

A clip longer than `PIECE_BYTES` comes in pieces, so that memory does not grow with it. With GPUs
the film is decoded by tasks of one CPU, some videos ahead, and their worker only encodes; without,
the worker decodes itself, which no cluster is too small for.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import ray

from data_prep import shards
from data_prep.decode import open_film
from data_prep.decode_process import DecodeError
from data_prep.index import Index
from data_prep.sampling import FrameSettings, HeldOut
from infra import storage
from infra.errors import UserError, one_line
from ray_jobs.sharding.plan import Clip, Estimate, PartReader

STREAMED_BYTES = 32 << 20
"""A piece that goes from a decoding task to its worker."""
PIECES_WAITING = 2
"""Of each decoding task, which then waits."""

About = dict[str, Any]
"""A clip's columns, less what is made of its frames."""


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of a clip."""

    about: About
    frames_THWC: np.ndarray
    start_frame: int
    is_last: bool
    """Of its clip."""


@dataclass(frozen=True)
class Failure:
    """A clip of which no more frames can be read."""

    clip_id: str
    uri: str
    detail: str
    from_frame: int
    """The first that is missing; what came before it is kept."""


@dataclass(frozen=True)
class FilmSource:
    """Clips of a clip table, decoded.

    Args:
        output_uri: of the running job, where its plan is.
        input_uri: of the clip table.
        settings: rate, sizes, and what is held out.
        estimate: as planned with.
        decoders: tasks that decode ahead for a worker; 0: the worker decodes itself.
    """

    output_uri: str
    input_uri: str
    settings: FrameSettings
    estimate: Estimate
    decoders: int = 0

    def pieces(self, part: int) -> Iterator[Piece | Failure]:
        """Yield the frames of a part's clips, in order."""
        reader = PartReader(self.output_uri, self.input_uri)
        clips = reader.clips(part, self.settings, self.estimate)
        only = reader.plan.facts["held_out_only"]
        held = HeldOut(self.settings.validation_share, only)
        videos = [list(of_video) for _, of_video in groupby(clips, key=lambda clip: clip.uri)]
        if not self.decoders:
            for video in videos:
                yield from _decode(video, self.settings.fps, held, shards.PIECE_BYTES)
            return
        coming: deque[Any] = deque()
        while videos or coming:
            while videos and len(coming) < self.decoders:
                coming.append(
                    _decode_ahead.remote(videos.pop(0), self.settings.fps, held, STREAMED_BYTES)
                )
            for reference in coming.popleft():
                yield ray.get(reference)


@dataclass(frozen=True)
class ShardSource:
    """Clips of shards of frames, read a row group ahead.

    Args:
        output_uri: of the running job, where its plan is.
        input_uri: of the artifact of kind `frames`.
    """

    output_uri: str
    input_uri: str

    def pieces(self, part: int) -> Iterator[Piece | Failure]:
        """Yield the frames of a part's clips, in order."""
        index = Index(self.input_uri)
        reader = PartReader(self.output_uri, self.input_uri)
        groups = [n for file in reader.files(part) for n in index.groups_of(file)]
        waiting: tuple[About, np.ndarray, int] | None = None
        for row in self._rows(index, groups):
            (window,) = row.pop("windows")
            frames = index.spec.window(window["data"], window["shape"])
            about = {key: row[key] for key in _ABOUT}
            if waiting is not None:
                yield Piece(*waiting, is_last=window["start_frame"] == 0)
            waiting = about, frames, window["start_frame"]
        if waiting is not None:
            yield Piece(*waiting, is_last=True)

    @staticmethod
    def _rows(index: Index, groups: list[int]) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(1) as ahead:
            coming: deque[Any] = deque()
            for group in groups:
                coming.append(ahead.submit(index.read, group))
                if len(coming) > 1:
                    yield from _as_rows(coming.popleft().result())
            while coming:
                yield from _as_rows(coming.popleft().result())


_ABOUT = ("clip_id", "video_id", "caption", "split", "start_s", "end_s", "fps", "motion")


def _as_rows(table: Any) -> Iterator[dict[str, Any]]:
    for place in range(table.num_rows):
        yield table.slice(place, 1).to_pylist()[0]


def _decode(
    clips: list[Clip], fps: float, held: HeldOut, piece_bytes: int
) -> Iterator[Piece | Failure]:
    """Yield the frames of one video's clips; a decoder that failed is not used again."""
    waiting, uri = deque(clips), clips[0].uri
    start = 0
    while waiting:
        try:
            with open_film(uri) as decoder:
                while waiting:
                    clip, start = waiting[0], 0
                    most = max(1, piece_bytes // (clip.height * clip.width * 3))
                    for frames in decoder.span_pieces(
                        clip.start_s, clip.end_s, fps, clip.width, clip.height, most
                    ):
                        is_last = start + len(frames) == clip.frames
                        yield Piece(_about(clip, fps, held), frames, start, is_last)
                        start += len(frames)
                    waiting.popleft()
        except storage.Unavailable:
            raise
        except (DecodeError, UserError, ValueError) as error:  # ValueError: a span that is none
            clip = waiting.popleft()
            yield Failure(clip.clip_id, uri, one_line(error), start)
            start = 0


_decode_ahead: Any = ray.remote(_decode).options(
    num_cpus=1, num_returns="streaming", _generator_backpressure_num_objects=PIECES_WAITING
)


def _about(clip: Clip, fps: float, held: HeldOut) -> About:
    about = {key: getattr(clip, key) for key in _ABOUT if hasattr(clip, key)}
    return {**about, "fps": fps, "split": held.split(clip.clip_id)}
