"""Lock of an output: one run at a time writes there, on local disks and in object stores.

A run keeps a file in its output that says who it is, and writes it anew every `BEAT_S` seconds. A
run that was killed leaves the file behind: where its process can be seen to be gone the next run
begins at once, and elsewhere after `SILENT_S` seconds in which the file stayed as it was. Clocks
of different machines are not compared.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from infra import storage
from infra.errors import Unavailable, UserError, one_line
from infra.log import logger

FILE = "running.json"
BEAT_S = 15.0
SILENT_S = 60.0
_POLL_S = 1.0


@dataclass(frozen=True)
class Holder:
    """The run that writes to an output."""

    run: str
    """Drawn by chance for each run."""
    host: str
    place: str
    """Names the machine since it started, and the processes that can be seen there."""
    process: int
    process_started: float
    since: str
    beats: int = 0

    @property
    def shown(self) -> str:
        """Name the run in a line for people."""
        return f"process {self.process} on {one_line(self.host, 60)}, since {self.since}"


@contextmanager
def held(uri: str) -> Iterator[None]:
    """Hold the output at `uri` for the time of the block.

    Raises:
        UserError: another run writes there, or has taken it over by the end of the block.
    """
    file = storage.join(uri, FILE)
    _await_silence(uri, file)
    mine = _this_run()
    storage.write_json(file, asdict(mine))
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(file, mine, ended), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        last = _read(file)
        if last is not None and last.run == mine.run:
            storage.remove(file)
    if last is not None and last.run != mine.run:
        raise UserError(f"output {uri}: another run took it over ({last.shown}); stop one of them")


def _await_silence(uri: str, file: str) -> None:
    """Return when nobody writes to an output; wait only where that cannot be seen at once."""
    first, begun_at = _read(file), time.monotonic()
    if first is None:
        return
    if first.place == _place():
        if _lives(first):
            raise _taken(uri, first)
        return
    logger.info(
        f"output {uri}: a run was there before ({first.shown}); "
        f"waiting up to {SILENT_S:.0f} s for a sign that it goes on"
    )
    while time.monotonic() - begun_at < SILENT_S:
        time.sleep(_POLL_S)
        now = _read(file)
        if now is None:
            return
        if now != first:
            raise _taken(uri, now)
    logger.info(f"output {uri}: no sign in {SILENT_S:.0f} s; resuming what that run left")


def _taken(uri: str, holder: Holder) -> UserError:
    return UserError(
        f"output {uri}: another run writes there ({holder.shown}); "
        "wait for it, stop it, or give another output"
    )


def _beat(file: str, mine: Holder, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(Unavailable, UserError):  # the work itself says what is wrong with storage
            last = _read(file)
            if last is not None and last.run != mine.run:
                logger.error(f"{file}: another run took over ({last.shown}); stop one of them")
                return
            mine = replace(mine, beats=mine.beats + 1)
            storage.write_json(file, asdict(mine))


def _read(file: str) -> Holder | None:
    """Return who holds an output; None where nobody does, or nobody that this version knows."""
    try:
        tree: dict[str, Any] = storage.read_map(file)
        found = Holder(**tree)
    except (UserError, TypeError):
        return None
    typed = all(isinstance(getattr(found, f), str) for f in ("run", "host", "place", "since"))
    return found if typed and isinstance(found.process, int) else None


def _this_run() -> Holder:
    process = psutil.Process()
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Holder(
        uuid.uuid4().hex, socket.gethostname(), _place(), process.pid, process.create_time(), since
    )


def _lives(holder: Holder) -> bool:
    """Return whether the process of a run of this machine is still the one that it was."""
    try:
        process = psutil.Process(holder.process)
        return process.create_time() == holder.process_started and (
            process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def _place() -> str:
    booted = Path("/proc/sys/kernel/random/boot_id")
    if not booted.exists():  # not Linux
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
    return f"{booted.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
