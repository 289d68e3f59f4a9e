"""Killable decoding: frames of an untrusted video through a child process with limits.

decord can spin for ever while holding the interpreter's lock, so no thread of this process can
stop it; a child can be killed. Frames are asked of decord, then of PyAV, which goes on where decord
failed, hung or died with its process (:mod:`data_prep.decode_worker`).
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from data_prep import probe as file_probe
from data_prep.types import FrameChunk, UnreadableReason, VideoInfo
from infra import storage
from infra.config import Section
from infra.storage import Ranges

ROOT = Path(__file__).resolve().parents[1]
_HEADER_BYTES_MAX = 1 << 20
_PIPE_BYTES = 1 << 20
_READ_BYTES_MAX = 1 << 20
_F_SETPIPE_SZ = 1031
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


class DecodeLimits(Section):
    """What a video may cost before it is given up."""

    stall_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds without any answer."""
    base_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that any request may wait for frames in all, whatever the film's length..."""
    factor: Annotated[float, Field(ge=0)] = 4.0
    """...and this many more for each second of film."""
    memory_bytes: Annotated[int, Field(ge=1 << 28)] = 4 << 30
    """Address space of the decoding process."""
    copy_bytes: Annotated[int, Field(ge=1)] = 32 << 30
    """The largest film that is copied to the local disk, out of a bucket or an archive."""
    span_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    """The most that one span may hold."""
    decoders: Annotated[tuple[Literal["decord", "pyav"], ...], Field(min_length=1)] = (
        "decord",
        "pyav",
    )
    """Tried in this order, each going on where the last one failed."""


class DecodeError(Exception):
    """A video that cannot be read."""

    def __init__(self, reason: UnreadableReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: UnreadableReason = reason
        self.detail = detail


@dataclass
class Usage:
    """What the decoding processes of a :class:`Decoder` have used; final once it is closed."""

    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0


class Decoder:
    """Reads one film through a child process; the child serves many requests.

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
        self._process: subprocess.Popen[bytes] | None = None
        self._info: VideoInfo | None = None
        self._waited_s = 0.0
        self.usage = Usage()
        self.decoder: str | None = None
        """Which library the last frames came from."""

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
        self._end()

    def probe(self) -> VideoInfo:
        """Return what the container claims.

        Raises:
            DecodeError: not a readable video.
        """
        if self._info is None:
            self._waited_s = 0.0
            self._ask(do="probe")
            header = self._message(0.0)
            self._info = _video_info(header)
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
        self._waited_s = 0.0
        request = {"do": "frames", "width": width, "height": height, "count": chunk_frames}
        sent, last_s = 0, -1.0
        failures: list[str] = []
        for name in self._limits.decoders:
            try:
                self._ask(**request, decoder=name, sent=sent, after_s=last_s)
                for times, frames in self._chunks(width, height, info.duration_s):
                    yield FrameChunk(sent, times, frames)
                    sent, last_s = sent + len(times), float(times[-1])
                return
            except DecodeError as error:
                failures.append(f"{name}: {error.detail}"[:500])
                if error.reason == "truncated" or len(failures) == len(self._limits.decoders):
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
        start_s + k / fps that begins within the span, so none leaks in from the next shot. It is
        scaled until it covers width x height, and its centre is cut out.

        Read by PyAV, which seeks without reading ahead and scales only the frames that are used.

        Args:
            start_s: seconds from the first frame, from 0.
            end_s: above start_s.
            fps: frames per second wanted, above 0.
            width: pixels.
            height: pixels.
            crop: where to cut; ``"centre"``.

        Raises:
            DecodeError: the span cannot be read.
            ValueError: an argument out of range, or a span of more than ``limits.span_bytes``.
        """
        if not 0 <= start_s < end_s or not fps > 0 or min(width, height) < 1 or crop != "centre":
            raise ValueError(
                f"span {start_s}..{end_s} s at {fps} fps, {width}x{height}, crop {crop!r}: allowed "
                "are 0 <= start < end, fps > 0, sizes of at least 1 and crop 'centre'"
            )
        count = max(1, int((end_s - start_s) * fps + 1e-6))
        if count * height * width * 3 > self._limits.span_bytes:
            raise ValueError(
                f"span of {count} frames {width}x{height}: allowed are span_bytes "
                f"{self._limits.span_bytes}"
            )
        info = self.probe()
        self._waited_s = 0.0
        self._ask(do="span", start_s=start_s, end_s=end_s, fps=fps, width=width, height=height)
        frames_THWC = np.empty((count, height, width, 3), np.uint8)
        at = 0
        for times, frames in self._chunks(width, height, max(info.duration_s, end_s - start_s)):
            if at + len(times) > count:
                raise self._broken("more frames than asked for")
            frames_THWC[at : at + len(times)] = frames
            at += len(times)
        if at != count:
            raise self._broken(f"{at} of {count} frames")
        return frames_THWC

    def _chunks(
        self, width: int, height: int, duration_s: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        finished = False
        try:
            while (header := self._message(duration_s))["kind"] == "frames":
                yield self._body(header, width, height, duration_s)
            self.decoder = str(header.get("decoder"))
            finished = True
        except DecodeError:
            finished = True
            raise
        finally:
            if not finished:  # the consumer left: the rest of the answer is still in the pipe
                self._end()

    def _body(
        self, header: dict[str, Any], width: int, height: int, duration_s: float
    ) -> tuple[np.ndarray, np.ndarray]:
        try:
            shape = tuple(int(n) for n in header["shape"])
            times = np.array(header["timestamps_s"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken(repr(error)) from None
        if shape[1:] != (height, width, 3) or times.shape != shape[:1] or not 1 <= shape[0] <= 8192:
            raise self._broken(f"frames of shape {shape}")
        frames = np.empty(shape, np.uint8)
        into, at = memoryview(frames.data).cast("B"), 0
        while at < len(into):
            at += self._read(into[at:], duration_s)
        return times, frames

    def _message(self, duration_s: float) -> dict[str, Any]:
        """Read one header, giving the child what it asks for; an error becomes an exception."""
        while (header := self._header(duration_s))["kind"] == "read":
            self._give(header)
        if header["kind"] == "error":
            raise self._refusal(str(header.get("reason")), str(header.get("detail")))
        return header

    def _give(self, header: dict[str, Any]) -> None:
        """Answer with the bytes that the child wants of the film."""
        at, count = header.get("at"), header.get("count")
        known = self._ranges.size_bytes if self._ranges else 0
        if not isinstance(at, int) or not isinstance(count, int) or at < 0 or count < 1:
            raise self._broken(f"a read of {count} bytes at {at}")
        if count > _READ_BYTES_MAX or at + count > known or self._ranges is None:
            raise self._broken(f"a read of {count} bytes at {at} of {known}")
        try:
            data = self._ranges.read(at, count)
        except BaseException:
            self._end()
            raise
        self._write(data)

    def _write(self, data: bytes) -> None:
        """Write to the child, which may be stuck and never read."""
        assert self._process is not None
        assert self._process.stdin is not None
        pipe = self._process.stdin
        poll = select.poll()
        poll.register(pipe, select.POLLOUT | select.POLLERR)
        left = memoryview(data)
        while left:
            if not poll.poll(self._limits.stall_s * 1000):
                self._end()
                raise DecodeError(
                    "decode_timeout", f"no progress for {self._limits.stall_s:g} s; stopped"
                )
            try:
                left = left[pipe.write(left) or 0 :]
            except BrokenPipeError:
                raise self._died() from None

    def _header(self, duration_s: float) -> dict[str, Any]:
        line = bytearray()
        while not line.endswith(b"\n"):
            if len(line) > _HEADER_BYTES_MAX:
                raise self._broken("an endless header")
            byte = bytearray(1)
            self._read(memoryview(byte), duration_s)
            line += byte
        try:
            header = json.loads(line)
            self.usage.peak_rss_bytes = max(
                self.usage.peak_rss_bytes, int(header["peak_rss_bytes"])
            )
            header["kind"]
        except (ValueError, TypeError, KeyError) as error:
            raise self._broken(repr(error)) from None
        return header

    def _refusal(self, reason: str, detail: str) -> DecodeError:
        if reason == "open":
            known = self._ranges is None and not file_probe.is_container(self._path)
            return DecodeError("not_a_video" if known else "decode_error", detail)
        if reason in ("no_video_stream", "truncated", "decode_error", "decode_memory"):
            return DecodeError(reason, detail)
        return self._broken(f"unknown reason {reason!r}")

    def _read(self, into: memoryview, duration_s: float) -> int:
        """Read some bytes of the answer; only the time spent waiting here counts."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout
        limits = self._limits
        total_s = limits.base_s + limits.factor * duration_s
        allowed_s = min(limits.stall_s, total_s - self._waited_s)
        poll = select.poll()
        poll.register(pipe, select.POLLIN | select.POLLHUP)
        begun_at = time.monotonic()
        ready = poll.poll(max(0.0, allowed_s) * 1000)
        self._waited_s += time.monotonic() - begun_at
        if not ready:
            stalled = allowed_s == limits.stall_s
            what = (
                f"no progress for {limits.stall_s:g} s" if stalled else f"not done in {total_s:g} s"
            )
            self._end()
            raise DecodeError("decode_timeout", f"{what}; the decoder was stopped")
        count = pipe.readinto(into)  # type: ignore[attr-defined]
        if not count:
            raise self._died()
        return count

    def _ask(self, **request: Any) -> None:
        if self._ranges is not None:
            request["size_bytes"] = self._ranges.size_bytes
        elif self._info is None and (found := file_probe.problem(self._path)) is not None:
            raise DecodeError(*found)
        if self._process is None:
            self._start()
        self._write(json.dumps({**request, "path": str(self._path)}).encode() + b"\n")

    def _start(self) -> None:
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._process = subprocess.Popen(
            [*self._command(), str(self._limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            cwd=ROOT,
            env={
                **kept,  # no credentials: a hostile file may take the child over
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        fcntl.fcntl(self._process.stdout, _F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._process.stdin.fileno(), False)

    @staticmethod
    def _command() -> Sequence[str]:
        return (sys.executable, "-m", "data_prep.decode_worker")

    def _died(self) -> DecodeError:
        code, said = self._end(died=True)
        if code == -signal.SIGKILL or "bad_alloc" in said or "MemoryError" in said:
            return DecodeError("decode_memory", "the decoder ran out of memory")
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return DecodeError("decode_error", f"the decoder ended with {how}: {said[-200:]}")

    def _broken(self, what: str) -> DecodeError:
        self._end()
        return DecodeError("decode_error", f"the decoder broke its protocol: {what}")

    def _end(self, died: bool = False) -> tuple[int, str]:
        """Kill the child's group, reap it and count its use; return status and last words."""
        process, self._process = self._process, None
        if process is None:
            return 0, ""
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if not ended:  # not reaped, so the id is still its own
            if died:  # its pipe ended: let it say how
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            _, status, used = os.wait4(process.pid, 0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.returncode = os.waitstatus_to_exitcode(status)
        self.usage.cpu_seconds += used.ru_utime + used.ru_stime
        self._errors.seek(0)
        said = self._errors.read(1 << 20)[-2000:].decode(errors="replace")
        self._errors.close()
        return process.returncode, " ".join(said.split())


@contextmanager
def open_film(uri: str, limits: DecodeLimits | None = None) -> Iterator[Decoder]:
    """Open the film at `uri` for reading spans; of a remote one only what they need is read."""
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
    )
