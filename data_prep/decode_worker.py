"""The decoding child: reads requests on standard input, answers with frames on standard output.

Run by :mod:`data_prep.decode_process` as ``python -m data_prep.decode_worker MEMORY_BYTES
IMAGE_PIXELS CONFINED_BY [FILE]``. Videos and images are untrusted input to large C libraries, so
they are only ever opened here, in a process that may be killed and that reaches nothing but this
file (:mod:`data_prep.sandbox`).

Request: one line of JSON, ``{"do": "probe" | "frames" | "span", "path": …, …}``.
Answer: messages, each one line of JSON (``kind``, ``cpu_seconds``, ``peak_rss_bytes``, …); a
``frames`` message is followed by its uint8 THWC bytes. ``info``, ``end`` or ``error`` comes last.
An image is answered as a film of one frame.

Of a film that is no local file (``size_bytes`` is in the request), this process asks its parent for
bytes: a message ``read`` (``at``, ``count``) is answered on standard input with exactly those.
"""

import ctypes
import io
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from data_prep import probe, sandbox
from data_prep.film import COMPLETE, Film, Refused

if TYPE_CHECKING:
    from data_prep.image import StillImage

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Timestamps (seconds from the first frame), frames_THWC, and which of them follow on lost ones."""

RECYCLE_BYTES = 256 << 20
"""decord reads ahead without bound while its reader waits; past this a fresh one takes over."""
MESSAGE_BYTES = 16 << 20


def with_decord(film: Film, width: int, height: int, count: int, after_s: float) -> Iterator[Chunk]:
    """Yield the frames after `after_s` with decord; short-lived readers bound the memory."""
    import decord

    if not film.alone:
        raise Refused("decode_error", "it cannot be told which of several streams to read")
    way = film.orientation
    turns = film.rotation % 90 == 0 and "mov" in film.container.format.name
    if not way.is_rotation or (film.rotation and not turns):
        raise Refused("decode_error", f"it does not show frames turned by {film.rotation}, {way}")
    times = film.times()
    at = int(np.searchsorted(times, after_s + 1e-6))
    decord.logging.set_level(decord.logging.ERROR)
    reader, begun_bytes = None, 0
    said_bytes = os.fstat(2).st_size
    while at < len(times):
        if reader is None:
            reader = decord.VideoReader(
                film.path, decord.cpu(0), width, height, num_threads=1, fault_tol=5
            )
            if len(reader) != len(times):
                raise Refused("decode_error", f"{len(reader)} frames for {len(times)} times")
            begun_bytes = resident_bytes()
        stop = min(at + count, len(times))
        frames = reader.get_batch(list(range(at, stop))).asnumpy()
        if os.fstat(2).st_size > said_bytes:  # it conceals damage, and only says so
            raise Refused("decode_error", "its decoder complained")
        yield times[at:stop], frames, np.zeros(stop - at, np.bool_)
        at = stop
        if resident_bytes() > begun_bytes + RECYCLE_BYTES:
            reader = None


def with_pyav(film: Film, width: int, height: int, count: int, after_s: float) -> Iterator[Chunk]:
    """Yield the frames after `after_s` with PyAV."""
    times: list[float] = []
    frames: list[np.ndarray] = []
    resumed: list[bool] = []
    seen, fresh = 0, film.again()
    for time_s, picture in fresh.pictures():
        seen += 1
        if time_s <= after_s + 1e-6:
            continue
        times.append(time_s)
        resumed.append(fresh.resumed)
        frames.append(fresh.scaled(picture, width, height, "BILINEAR"))  # as decord
        if len(times) == count:
            yield np.array(times), np.stack(frames), np.array(resumed)
            times, frames, resumed = [], [], []
    fresh.container.close()
    film.lost = fresh.lost
    if times:
        yield np.array(times), np.stack(frames), np.array(resumed)
    if seen < COMPLETE * (seen + fresh.backwards):
        raise Refused("decode_error", f"the times of {fresh.backwards} frames run backwards")


DECODERS: dict[str, Callable[[Film, int, int, int, float], Iterator[Chunk]]] = {
    "decord": with_decord,
    "pyav": with_pyav,
}


class Asked(io.RawIOBase):
    """A file whose bytes are asked of somebody: `ask` returns those at an offset."""

    def __init__(self, ask: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._ask, self._size_bytes, self._at = ask, size_bytes, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset."""
        self._at = max(0, (0, self._at, self._size_bytes)[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Put the next bytes into a buffer; return how many."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; fewer at the end."""
        left = max(0, self._size_bytes - self._at)
        count = left if size < 0 else min(size, left)
        data = self._ask(self._at, count) if count else b""
        self._at += count
        return data


class Worker:
    """Serves requests until its standard input ends."""

    def __init__(self, out: BinaryIO, requests: BinaryIO, image_pixels: int) -> None:
        self._out, self._requests, self._image_pixels = out, requests, image_pixels
        self._film: Film | StillImage | None = None

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request; whatever goes wrong becomes an ``error`` message."""
        try:
            getattr(self, f"_{request.pop('do')}")(**request)
        except Refused as refused:
            self._send("error", reason=refused.reason, detail=str(refused))
        except MemoryError as error:
            self._send("error", reason="decode_memory", detail=f"out of memory: {error}")
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            reason = "decode_memory" if "bad_alloc" in text else "decode_error"
            self._send("error", reason=reason, detail=text[:2000])

    def _probe(self, path: str, size_bytes: int | None = None) -> None:
        self._send("info", **self._open(path, size_bytes).info())

    def _frames(
        self,
        path: str,
        width: int,
        height: int,
        count: int,
        decoder: str,
        sent: int,
        after_s: float,
    ) -> None:
        film = self._open(path)
        if not isinstance(film, Film):
            self._send_frames(np.zeros(1), film.scaled(width, height)[None])
            self._send("end", decoder="pillow")
            return
        for times, frames, resumed in DECODERS[decoder](film, width, height, count, after_s):
            gaps = np.diff(times, prepend=after_s if sent else times[0]) > film.gap_s
            self._send_frames(times, frames, np.flatnonzero(resumed | gaps).tolist())
            sent, after_s = sent + len(times), float(times[-1])
        if not sent:
            raise Refused("decode_error", "no frame came out")
        film.check_complete(sent, after_s + 1 / film.fps)
        self._send("end", decoder=decoder, lost=film.lost)

    def _span(
        self,
        path: str,
        start_s: float,
        end_s: float,
        fps: float,
        width: int,
        height: int,
        size_bytes: int | None = None,
    ) -> None:
        film = self._open(path, size_bytes)
        if not isinstance(film, Film):
            self._send_frames(np.zeros(1), film.cover(width, height)[None])
            self._send("end", decoder="pillow")
            return
        wanted = start_s + np.arange(max(1, int((end_s - start_s) * fps + 1e-6))) / fps
        batch = max(1, MESSAGE_BYTES // (width * height * 3))
        frames: list[np.ndarray] = []
        sent = 0
        for picture in _nearest(film, wanted, start_s, end_s):
            frames.append(film.cover(picture, width, height))
            if len(frames) == batch or sent + len(frames) == len(wanted):
                self._send_frames(wanted[sent : sent + len(frames)], np.stack(frames))
                sent, frames = sent + len(frames), []
        self._send("end", decoder="pyav")

    def _open(self, path: str, size_bytes: int | None = None) -> "Film | StillImage":
        if self._film is None or self._film.path != path:
            self._film = None
            source = None if size_bytes is None else lambda: Asked(self._ask, size_bytes)
            with source() if source else open(path, "rb") as file:
                head = file.read(probe.HEADER_BYTES)
            if probe.is_image(head):
                from data_prep.image import StillImage  # Pillow, which films do not need

                self._film = StillImage(path, source, self._image_pixels)
            else:
                stated = probe.segment(head, size_bytes or os.path.getsize(path))
                self._film = Film(path, source, stated is not None and stated[0] <= stated[1])
        return self._film

    def _ask(self, at: int, count: int) -> bytes:
        self._send("read", at=at, count=count)
        data = self._requests.read(count)
        if len(data) != count:
            raise SystemExit("the parent is gone")
        return data

    def _send_frames(
        self, times: np.ndarray, frames: np.ndarray, breaks: Sequence[int] = ()
    ) -> None:
        self._send("frames", shape=frames.shape, timestamps_s=times.tolist(), breaks=breaks)
        self._out.write(np.ascontiguousarray(frames).data.cast("B"))
        self._out.flush()

    def _send(self, kind: str, **fields: Any) -> None:
        used = {"cpu_seconds": time.process_time(), "peak_rss_bytes": peak_bytes()}
        self._out.write(json.dumps({"kind": kind, **used, **fields}).encode() + b"\n")
        self._out.flush()


def _nearest(film: Film, wanted: np.ndarray, start_s: float, end_s: float) -> Iterator[Any]:
    """Yield for each wanted time the nearest frame that begins within [start_s, end_s)."""
    half, slack = 0.5 / film.fps, min(0.25 / film.fps, 1e-3)  # stored times may be float32
    for back_s in (0.0, 2.0, 10.0, np.inf):  # a seek may land late: then from further back
        if back_s == np.inf:
            film = film.again()  # some containers cannot even go back to their start
        else:
            film.seek(max(0.0, start_s - back_s))
        pictures = film.pictures()
        head = next(pictures, None)
        if head is not None and (head[0] <= start_s + half or back_s == np.inf):
            break
    done, before = 0, None
    while head is not None and head[0] < end_s - slack:
        time_s = head[0]
        if time_s >= start_s - slack:
            while before and done < len(wanted) and wanted[done] < (before[0] + time_s) / 2:
                yield before[1]
                done += 1
            before = head
            if done == len(wanted):
                return
        head = next(pictures, None)
    reached_s = before[0] if before else 0.0
    if before is None or (head is None and wanted[-1] > reached_s + max(1.5 / film.fps, 0.1)):
        raise Refused("truncated", f"frames end at {reached_s:.2f} s, before {wanted[-1]:.2f} s")
    for _ in range(done, len(wanted)):
        yield before[1]


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    with open("/proc/self/status") as file:
        lines = [line for line in file if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def main() -> None:
    """Cap this process, then serve."""
    memory_bytes, image_pixels = map(int, sys.argv[1:3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # what goes to the error log
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the parent
    confined_by, *films = sys.argv[3:]
    sandbox.enter(films, *filter(None, confined_by.split(",")))
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    worker = Worker(out, sys.stdin.buffer, image_pixels)
    while line := sys.stdin.buffer.readline():
        worker.serve(json.loads(line))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)
