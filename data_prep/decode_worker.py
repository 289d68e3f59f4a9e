"""The decoding child: reads requests on standard input, answers with frames on standard output.

Run by :mod:`data_prep.decode` as ``python -m data_prep.decode_worker``. Video is untrusted input to
large C libraries, so it is only ever opened here, in a process that may be killed.

Request: one line of JSON, ``{"do": "probe" | "frames" | "span", "path": …, …}``.
Answer: messages, each one line of JSON (``kind``, ``cpu_seconds``, ``peak_rss_bytes``, …); a
``frames`` message is followed by its uint8 THWC bytes. ``info``, ``end`` or ``error`` comes last.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

Chunk = tuple[np.ndarray, np.ndarray]
"""Timestamps (seconds from the first frame) and frames_THWC."""

FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo"
"""The demuxers that may be used: a playlist posing as a video must not open other files."""
COMPLETE = 0.95
"""The share of what the container claims that must come out; claims run slightly over."""
RECYCLE_BYTES = 256 << 20
"""decord reads ahead without bound while its reader waits; past this a fresh one takes over."""
MESSAGE_BYTES = 16 << 20


class Refused(Exception):
    """A video that cannot be read, with the reason that goes into the table."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Film:
    """One open container, read by PyAV: what it claims, and spans of it."""

    def __init__(self, path: str) -> None:
        import av
        import av.error
        import av.logging
        import av.stream

        av.logging.set_level(av.logging.PANIC)
        self.path = path
        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        try:
            self.container = av.open("file:" + path, options=options, metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise Refused("open", f"no decoder opens it: {error.strerror}") from None
        pictures = [
            s
            for s in self.container.streams.video
            if not s.disposition & av.stream.Disposition.attached_pic
        ]
        if not pictures:
            raise Refused("no_video_stream", "the file holds no video stream")
        self.stream = pictures[0]
        if self.stream.codec_context is None:
            raise Refused("decode_error", "no decoder for the codec of its video stream")
        self.stream.thread_count = 1
        rate = self.stream.average_rate or self.stream.guessed_rate or self.stream.base_rate
        if not rate or not self.stream.width or not self.stream.height:
            raise Refused("decode_error", "the container states no frame rate or no frame size")
        self.fps = float(rate)
        self.tick_s = self.stream.time_base or Fraction(1, 90000)
        self.start_s = float((self.stream.start_time or 0) * self.tick_s)
        alone = len(self.container.streams) == 1
        own = self.stream.duration
        whole = self.container.duration
        seconds = float(own * self.tick_s) if own else (whole or 0) / 1e6
        self.duration_s = seconds
        # A longer sound track may stretch the container, so its length proves nothing.
        self.promised_s = seconds if own or alone else 0.0

    def info(self) -> dict[str, Any]:
        """Return what the container claims, by the names of :class:`data_prep.types.VideoInfo`."""
        return {
            "duration_s": self.duration_s,
            "fps": self.fps,
            "width_px": self.stream.width,
            "height_px": self.stream.height,
            "frames": self.stream.frames,
            "codec": self.stream.codec_context.name,
        }

    def check_complete(self, frames: int, end_s: float) -> None:
        """Refuse a film of which too little came out."""
        if self.stream.frames:
            if frames < COMPLETE * self.stream.frames:
                raise Refused("truncated", f"read {frames} of {self.stream.frames} frames")
        elif end_s < COMPLETE * self.promised_s - 1 / self.fps:
            raise Refused("truncated", f"read {end_s:.2f} of {self.promised_s:.2f} seconds")

    def seek(self, to_s: float) -> None:
        """Go to the key frame at or before `to_s`."""
        offset = int((to_s + self.start_s) / self.tick_s)
        self.container.seek(offset, stream=self.stream, backward=True)

    def pictures(self) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, frame) from the current position; damaged packets are passed over."""
        import av.error

        for packet in self.container.demux(self.stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                continue  # what is lost shows up in the count at the end
            for picture in decoded:
                if picture.pts is not None:
                    yield float(picture.pts * self.tick_s) - self.start_s, picture


def with_decord(film: Film, width: int, height: int, count: int, after_s: float) -> Iterator[Chunk]:
    """Yield the frames after `after_s` with decord; short-lived readers bound the memory."""
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    reader, at, begun_bytes, times = None, 0, 0, np.zeros(0)
    while True:
        if reader is None:
            reader = decord.VideoReader(
                film.path, decord.cpu(0), width, height, num_threads=1, fault_tol=5
            )
            begun_bytes = resident_bytes()
            times = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
            times -= times[0] if len(times) else 0.0
            at = int(np.searchsorted(times, after_s, side="right"))
        if at >= len(times):
            return
        stop = min(at + count, len(times))
        frames = reader.get_batch(list(range(at, stop))).asnumpy()
        yield times[at:stop], frames
        after_s, at = float(times[stop - 1]), stop
        if resident_bytes() > begun_bytes + RECYCLE_BYTES:
            reader = None


def with_pyav(film: Film, width: int, height: int, count: int, after_s: float) -> Iterator[Chunk]:
    """Yield the frames after `after_s` with PyAV."""
    times: list[float] = []
    frames: list[np.ndarray] = []
    first_s: float | None = None
    fresh = Film(film.path)
    for time_s, picture in fresh.pictures():
        first_s = time_s if first_s is None else first_s
        if time_s - first_s <= after_s + 1e-6:
            continue
        times.append(time_s - first_s)
        scaled = picture.reformat(width, height, "rgb24", interpolation="BILINEAR")  # as decord
        frames.append(scaled.to_ndarray())
        if len(times) == count:
            yield np.array(times), np.stack(frames)
            times, frames = [], []
    fresh.container.close()
    if times:
        yield np.array(times), np.stack(frames)


DECODERS: dict[str, Callable[[Film, int, int, int, float], Iterator[Chunk]]] = {
    "decord": with_decord,
    "pyav": with_pyav,
}


class Worker:
    """Serves requests until its standard input ends."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._film: Film | None = None

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

    def _probe(self, path: str) -> None:
        self._send("info", **self._open(path).info())

    def _frames(self, path: str, width: int, height: int, count: int, decoders: list[str]) -> None:
        film, sent, last_s, failures = self._open(path), 0, -1.0, []
        for name in decoders:
            try:
                for times, frames in DECODERS[name](film, width, height, count, last_s):
                    self._send_frames(times, frames)
                    sent, last_s = sent + len(times), float(times[-1])
                break
            except Exception as error:
                failures.append(f"{name}: {type(error).__name__}: {error}"[:500])
        else:
            raise Refused("decode_error", "; ".join(failures))
        if not sent:
            raise Refused("decode_error", "no frame came out")
        film.check_complete(sent, last_s + 1 / film.fps)
        self._send("end", decoder=name, failures=failures)

    def _span(
        self, path: str, start_s: float, end_s: float, fps: float, width: int, height: int
    ) -> None:
        film = self._open(path)
        wanted = start_s + np.arange(max(1, int((end_s - start_s) * fps + 1e-6))) / fps
        batch = max(1, MESSAGE_BYTES // (width * height * 3))
        frames: list[np.ndarray] = []
        sent = 0
        for picture in _nearest(film, wanted, start_s, end_s):
            frames.append(cover(picture, width, height))
            if len(frames) == batch or sent + len(frames) == len(wanted):
                self._send_frames(wanted[sent : sent + len(frames)], np.stack(frames))
                sent, frames = sent + len(frames), []
        self._send("end", decoder="pyav", failures=[])

    def _open(self, path: str) -> Film:
        if self._film is None or self._film.path != path:
            self._film = None
            self._film = Film(path)
        return self._film

    def _send_frames(self, times: np.ndarray, frames: np.ndarray) -> None:
        self._send("frames", shape=frames.shape, timestamps_s=times.tolist())
        self._out.write(np.ascontiguousarray(frames).data.cast("B"))
        self._out.flush()

    def _send(self, kind: str, **fields: Any) -> None:
        used = {"cpu_seconds": time.process_time(), "peak_rss_bytes": peak_bytes()}
        self._out.write(json.dumps({"kind": kind, **used, **fields}).encode() + b"\n")
        self._out.flush()


def _nearest(film: Film, wanted: np.ndarray, start_s: float, end_s: float) -> Iterator[Any]:
    """Yield for each wanted time the nearest frame that begins within [start_s, end_s)."""
    half, slack = 0.5 / film.fps, 0.25 / film.fps  # stored times may be float32
    for back_s in (0.0, 2.0, 10.0, np.inf):  # a seek may land late: then from further back
        film.seek(max(0.0, start_s - back_s) if np.isfinite(back_s) else 0.0)
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


def cover(picture: Any, width: int, height: int) -> np.ndarray:
    """Scale a frame until it covers `width` x `height`, then cut out its centre (uint8 HWC)."""
    scale = max(width / picture.width, height / picture.height)
    wide = max(width, round(picture.width * scale))
    high = max(height, round(picture.height * scale))
    kind = "AREA" if scale < 1 else "BICUBIC"
    scaled = picture.reformat(wide, high, "rgb24", interpolation=kind).to_ndarray()
    top, left = (high - height) // 2, (wide - width) // 2
    return scaled[top : top + height, left : left + width]


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
    memory_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # what goes to the error log
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the parent
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    worker = Worker(out)
    for line in sys.stdin.buffer:
        worker.serve(json.loads(line))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)
