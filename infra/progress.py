"""Progress of long work: a bar on a terminal, a line now and then in a job's log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from infra.log import logger

LOG_INTERVAL_S = 10.0


class Progress:
    """Count work done, for people.

    Args:
        total: units in all; None when that is not known.
        name: what is going on, such as ``"prepare"``.
        unit: what is counted, such as ``"videos"``.
        done: units that an earlier run had done.
    """

    def __init__(self, total: int | None, name: str, unit: str, done: int = 0) -> None:
        self._total, self._name, self._unit, self._done = total, name, unit, done
        self._begun_with = done
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "Progress":
        self._begun_at = self._said_at = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self._name, total=self._total, completed=self._done, note=""
            )
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        """Add `n` units; `note` is shown beside the count, such as a loss."""
        self._done += n
        if self._bar is not None:
            self._bar.update(self._task, advance=n, note=note)
        elif time.monotonic() - self._said_at >= LOG_INTERVAL_S:
            self._say(note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._say("")

    def _say(self, note: str) -> None:
        self._said_at = time.monotonic()
        elapsed = self._said_at - self._begun_at
        new = self._done - self._begun_with
        total = f"/{self._total}" if self._total is not None else ""
        left = ""
        if self._total is not None and new > 0 and self._done < self._total:
            left = f", {elapsed / new * (self._total - self._done):.0f} s left"
        tail = f"  {note}" if note else ""
        logger.info(f"{self._name}: {self._done}{total} {self._unit}, {elapsed:.0f} s{left}{tail}")
