"""The decoding process as its parent sees it: started, asked, listened to and killed in time.

The other end is :mod:`data_prep.decode_worker`, whose documentation has the protocol. What the
child says is untrusted too: a hostile file may have taken it over.
"""

import fcntl
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from data_prep import probe as file_probe
from data_prep import sandbox
from data_prep.types import UnreadableReason
from infra.config import Section
from infra.log import logger
from infra.storage import Ranges

ROOT = Path(__file__).resolve().parents[1]
_HEADER_BYTES_MAX = 1 << 20
_PIPE_BYTES = 1 << 20
_READ_BYTES_MAX = 1 << 20
_FRAMES_MAX = 8192
_F_SETPIPE_SZ = 1031
_REFUSALS = (
    "no_video_stream",
    "truncated",
    "decode_error",
    "decode_memory",
    "too_large",
)
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
    image_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Width times height that an image may claim; one of more is refused before it is decoded."""
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


@functools.cache
def _confined_by() -> str:
    """Return what a child of this machine is confined by; what is lacking is said once."""
    lacks = sandbox.missing()
    for part, why in lacks.items():
        logger.warning(
            f"decoding processes are not confined by {part} on this machine ({why}): a hostile "
            "video that takes one over could reach more than its own file"
        )
    return ",".join(part for part in sandbox.PARTS if part not in lacks)


class DecodeProcess:
    """One child that reads one film; started when it is first asked, and anew after its end.

    Whatever goes wrong ends the child and raises :class:`DecodeError`.

    Args:
        path: as :class:`data_prep.decode.Decoder` has it, absolute.
        limits: deadlines and caps.
        ranges: as :class:`data_prep.decode.Decoder` has it.
    """

    def __init__(self, path: Path, limits: DecodeLimits, ranges: Ranges | None) -> None:
        self._path, self._limits, self._ranges = path, limits, ranges
        self._process: subprocess.Popen[bytes] | None = None
        self._waited_s = 0.0
        self.usage = Usage()

    def begin(self) -> None:
        """Begin something with a deadline of its own; the questions that follow share it."""
        self._waited_s = 0.0

    def ask(self, **request: Any) -> None:
        """Send a request; :meth:`answer` returns what comes back."""
        if self._ranges is not None:
            request["size_bytes"] = self._ranges.size_bytes
        if self._process is None:
            self.start()
        self._write(json.dumps({**request, "path": str(self._path)}).encode() + b"\n")

    def answer(self, duration_s: float) -> dict[str, Any]:
        """Return the next message, giving the child what it asks for before.

        Args:
            duration_s: of the film, which the deadline depends on.

        Raises:
            DecodeError: the child refuses, breaks its protocol, dies or is too slow.
        """
        while (header := self._header(duration_s))["kind"] == "read":
            self._give(header)
        if header["kind"] == "error":
            raise self._refusal(str(header.get("reason")), str(header.get("detail")))
        return header

    def frames(
        self, header: dict[str, Any], width: int, height: int, duration_s: float
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """Return what a message of kind ``frames`` brings: times in seconds, uint8 THWC, breaks."""
        try:
            shape = tuple(int(n) for n in header["shape"])
            times = np.array(header["timestamps_s"], np.float64)
            breaks = tuple(int(n) for n in header["breaks"])
        except (KeyError, TypeError, ValueError) as error:
            raise self.broken(repr(error)) from None
        if (
            shape[1:] != (height, width, 3)
            or times.shape != shape[:1]
            or not 1 <= shape[0] <= _FRAMES_MAX
            or any(not 0 <= n < shape[0] for n in breaks)
        ):
            raise self.broken(f"frames of shape {shape}")
        frames = np.empty(shape, np.uint8)
        into, at = memoryview(frames.data).cast("B"), 0
        while at < len(into):
            at += self._read(into[at:], duration_s)
        return times, frames, breaks

    def broken(self, what: str) -> DecodeError:
        """End the child, and return the error to raise of what it has said."""
        self.end()
        return DecodeError("decode_error", f"the decoder broke its protocol: {what}")

    def end(self, died: bool = False) -> tuple[int, str]:
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

    def start(self) -> int:
        """Start the child and return the id of its process."""
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._process = subprocess.Popen(
            [
                *self.command(),
                *map(str, (self._limits.memory_bytes, self._limits.image_pixels)),
                _confined_by(),
                *([] if self._ranges else [str(self._path)]),
            ],
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
        return self._process.pid

    @staticmethod
    def command() -> Sequence[str]:
        """Return what is run, but for the two limits that come after."""
        return (sys.executable, "-m", "data_prep.decode_worker")

    def _give(self, header: dict[str, Any]) -> None:
        """Answer with the bytes that the child wants of the film."""
        at, count = header.get("at"), header.get("count")
        known = self._ranges.size_bytes if self._ranges else 0
        if not isinstance(at, int) or not isinstance(count, int) or at < 0 or count < 1:
            raise self.broken(f"a read of {count} bytes at {at}")
        if count > _READ_BYTES_MAX or at + count > known or self._ranges is None:
            raise self.broken(f"a read of {count} bytes at {at} of {known}")
        try:
            data = self._ranges.read(at, count)
        except BaseException:
            self.end()
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
                self.end()
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
                raise self.broken("an endless header")
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
            raise self.broken(repr(error)) from None
        return header

    def _refusal(self, reason: str, detail: str) -> DecodeError:
        if reason == "open":
            if self._ranges is not None:
                return DecodeError("decode_error", detail)
            return DecodeError(*file_probe.unopened(self._path, detail))
        if reason in _REFUSALS:
            return DecodeError(reason, detail)
        return self.broken(f"unknown reason {reason!r}")

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
            self.end()
            raise DecodeError("decode_timeout", f"{what}; the decoder was stopped")
        count = pipe.readinto(into)  # type: ignore[attr-defined]
        if not count:
            raise self._died()
        return count

    def _died(self) -> DecodeError:
        code, said = self.end(died=True)
        if code == -signal.SIGKILL or "bad_alloc" in said or "MemoryError" in said:
            return DecodeError("decode_memory", "the decoder ran out of memory")
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return DecodeError("decode_error", f"the decoder ended with {how}: {said[-200:]}")
