"""Killable decoding: frames of an untrusted video or image through a child process with limits.

decord can spin for ever while holding the interpreter's lock, so no thread of this process can
stop it; a child can be killed. Frames are asked of decord, then of PyAV, which goes on where decord
failed, hung or died with its process (:mod:`data_prep.decode_process`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from data_prep import probe as file_probe
from data_prep.decode_process import DecodeError, DecodeLimits, DecodeProcess, Usage
from data_prep.sampling import frames_in
from data_prep.types import FrameChunk, VideoInfo
from infra import storage
from infra.storage import Ranges


class Decoder:
    """Reads one film or image through a child process; the child serves many requests.

    An image is read by Pillow, as a film of one frame at 0 s.

    Args:
        path: a local file, of whatever content; only a name when there are `ranges`.
        limits: deadlines and caps; a request that exceeds one ends with :class:`DecodeError`
            and its process is killed. A later request starts a fresh one.
        ranges: where the film's bytes come from when it is no local file. The child, which has
            neither network nor credentials, asks for them; only spans can be read so.
    """

    def __init__(
        self,
        path: str | Path,
        limits: DecodeLimits | None = None,
        ranges: Ranges | None = None,
    ) -> None:
        self._ranges = ranges
        self._path = Path(os.path.abspath(path))
        self._limits = limits or DecodeLimits()
        self._child = DecodeProcess(self._path, self._limits, ranges)
        self._info: VideoInfo | None = None
        self.decoder: str | None = None
        """Which library the last frames came from."""
        self.lost = 0
        """Frames of the film that came damaged or were built on damage, and were left out."""

    @property
    def usage(self) -> Usage:
        """What its processes have used."""
        return self._child.usage

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the child, if there is one, and count what it used."""
        self._child.end()

    def probe(self) -> VideoInfo:
        """Return what the file claims.

        Raises:
            DecodeError: not a readable video or image.
        """
        if self._info is None:
            if self._ranges is None and (found := file_probe.problem(self._path)) is not None:
                raise DecodeError(*found)
            self._child.begin()
            self._child.ask(do="probe")
            self._info = _video_info(self._child.answer(0.0))
        return self._info

    def frames(
        self,
        *,
        long_side_px: int | None = None,
        size: tuple[int, int] | None = None,
        chunk_frames: int = 32,
    ) -> Iterator[FrameChunk]:
        """Yield all frames in order, scaled while they are decoded.

        Args:
            long_side_px: scale so that the longer side has at most this many pixels, or
            size: (width, height) to scale to, whatever the shape. Exactly one of the two.
            chunk_frames: the most frames in a chunk.

        Raises:
            DecodeError: when the frames end early (truncated) or a limit is exceeded, which may be
                after some chunks.
        """
        if self._ranges is not None:
            raise ValueError("frames of a film that is no local file: allowed are spans")
        if (long_side_px is None) == (size is None):
            raise ValueError(f"give one of long_side_px {long_side_px} and size {size}")
        info = self.probe()
        width, height = size or fit(info.width_px, info.height_px, long_side_px or 0)
        self._child.begin()
        request = {"do": "frames", "width": width, "height": height, "count": chunk_frames}
        sent, last_s = 0, -1.0
        failures: list[str] = []
        decoders = ("pillow",) if info.media == "image" else self._limits.decoders
        for name in decoders:
            try:
                self._child.ask(**request, decoder=name, sent=sent, after_s=last_s)
                for times, frames, breaks in self._chunks(width, height, info.duration_s):
                    yield FrameChunk(sent, times, frames, breaks)
                    sent, last_s = sent + len(times), float(times[-1])
                return
            except DecodeError as error:
                failures.append(f"{name}: {error.detail}"[:500])
                if error.reason == "truncated" or len(failures) == len(decoders):
                    raise DecodeError(error.reason, "; ".join(failures)) from None

    def span(
        self,
        start_s: float,
        end_s: float,
        fps: float,
        width: int,
        height: int,
        crop: Literal["centre"] = "centre",
    ) -> np.ndarray:
        """Return the frames of [start_s, end_s), resampled in time and space, as uint8 THWC.

        T = floor((end_s - start_s) * fps), at least 1. Frame k is the one nearest to
        start_s + k / fps that begins within the span, so none leaks in from the next shot. Of an
        image it is the one frame (T = 1), whatever the times and the rate. A frame is scaled until
        it covers width x height, and its centre is cut out.

        Read by PyAV, which seeks without reading ahead and scales only the frames that are used.

        Args:
            start_s: seconds from the first frame, from 0.
            end_s: above start_s; of an image it may be the same.
            fps: frames per second wanted, above 0.
            width: pixels.
            height: pixels.
            crop: where to cut; ``"centre"``.

        Raises:
            DecodeError: the span cannot be read.
            ValueError: an argument out of range, or a span of more than ``limits.span_bytes``.
        """
        count = frames_in(start_s, end_s, fps)
        if count * height * width * 3 > self._limits.span_bytes:
            raise ValueError(
                f"span of {count} frames {width}x{height}: allowed are span_bytes "
                f"{self._limits.span_bytes}"
            )
        pieces = self.span_pieces(start_s, end_s, fps, width, height, count, crop)
        (frames_THWC,) = pieces
        return frames_THWC

    def span_pieces(
        self,
        start_s: float,
        end_s: float,
        fps: float,
        width: int,
        height: int,
        piece_frames: int,
        crop: Literal["centre"] = "centre",
    ) -> Iterator[np.ndarray]:
        """Yield the frames of :meth:`span`, `piece_frames` at a time and fewer at the end.

        Raises:
            DecodeError: the span cannot be read, which may be after some pieces.
            ValueError: an argument out of range.
        """
        if not 0 <= start_s <= end_s or not fps > 0 or min(width, height) < 1 or crop != "centre":
            raise ValueError(
                f"span {start_s}..{end_s} s at {fps} fps, {width}x{height}, crop {crop!r}: allowed "
                "are 0 <= start <= end, fps > 0, sizes of at least 1 and crop 'centre'"
            )
        info = self.probe()
        is_image = info.media == "image"
        if start_s == end_s and not is_image:
            raise ValueError(f"span {start_s}..{end_s} s of a film: allowed are start < end")
        count = 1 if is_image else frames_in(start_s, end_s, fps)
        self._child.begin()
        self._child.ask(
            do="span", start_s=start_s, end_s=end_s, fps=fps, width=width, height=height
        )
        piece, filled, left = np.empty((0, height, width, 3), np.uint8), 0, count
        for _, frames, _ in self._chunks(width, height, max(info.duration_s, end_s - start_s)):
            if len(frames) > left:
                raise self._child.broken("more frames than asked for")
            while len(frames):
                if not len(piece):
                    piece, filled = np.empty((min(piece_frames, left), height, width, 3), "u1"), 0
                some = frames[: len(piece) - filled]
                piece[filled : filled + len(some)] = some
                filled, left, frames = filled + len(some), left - len(some), frames[len(some) :]
                if filled == len(piece) and left:
                    yield piece
                    piece = piece[:0]
        if left:
            raise self._child.broken(f"{count - left} of {count} frames")
        yield piece

    def _chunks(
        self, width: int, height: int, duration_s: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
        finished = False
        try:
            while (header := self._child.answer(duration_s))["kind"] == "frames":
                yield self._child.frames(header, width, height, duration_s)
            self.decoder = str(header.get("decoder"))
            self.lost = int(header.get("lost", 0))
            finished = True
        except DecodeError:
            finished = True
            raise
        finally:
            if not finished:  # the consumer left: the rest of the answer is still in the pipe
                self._child.end()


@contextmanager
def open_film(uri: str, limits: DecodeLimits | None = None) -> Iterator[Decoder]:
    """Open the film or image at `uri` for reading spans; only what they need is fetched."""
    if storage.is_copied(uri):
        with storage.open_ranges(uri) as ranges, Decoder(uri, limits, ranges) as decoder:
            yield decoder
    else:
        with storage.local_copy(uri) as path, Decoder(path, limits) as decoder:
            yield decoder


def fit(width: int, height: int, long_side_px: int) -> tuple[int, int]:
    """Return (width, height), even numbers, scaled down to a longer side of `long_side_px`."""
    scale = min(1.0, long_side_px / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def probe(path: str | Path, limits: DecodeLimits | None = None) -> VideoInfo:
    """Return what a video's container claims; see :meth:`Decoder.probe`."""
    with Decoder(path, limits) as decoder:
        return decoder.probe()


def decode(
    path: str | Path,
    *,
    long_side_px: int | None = None,
    size: tuple[int, int] | None = None,
    limits: DecodeLimits | None = None,
) -> Iterator[FrameChunk]:
    """Yield all frames of a video; see :meth:`Decoder.frames`."""
    with Decoder(path, limits) as decoder:
        yield from decoder.frames(long_side_px=long_side_px, size=size)


def decode_span(
    path: str | Path,
    start_s: float,
    end_s: float,
    fps: float,
    width: int,
    height: int,
    crop: Literal["centre"] = "centre",
    limits: DecodeLimits | None = None,
) -> np.ndarray:
    """Return a span of a video as uint8 THWC; see :meth:`Decoder.span`."""
    with Decoder(path, limits) as decoder:
        return decoder.span(start_s, end_s, fps, width, height, crop)


def _video_info(header: dict[str, Any]) -> VideoInfo:
    return VideoInfo(
        duration_s=float(header["duration_s"]),
        fps=float(header["fps"]),
        width_px=int(header["width_px"]),
        height_px=int(header["height_px"]),
        frames=int(header["frames"]),
        codec=str(header["codec"]),
        transfer=str(header.get("transfer", "")),
        media="image" if header["media"] == "image" else "video",
    )
