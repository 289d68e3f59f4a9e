"""Meter of a job's phases: seconds, the process's memory, and requests to storage by their kind."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.scaling import counting_proxy


@dataclass(frozen=True)
class Measurement:
    """What one phase of a job took at one size of the corpus."""

    phase: str
    videos: int
    seconds: float
    driver_bytes: int
    """The most memory that was resident in the phase, over what was before the job."""
    requests: dict[str, int]
    """By kind, of all processes."""

    @property
    def total_requests(self) -> int:
        """Requests of all kinds."""
        return sum(self.requests.values())


class Meter:
    """Measures the phases of one job in this process; what is resident before the first is zero.

    Args:
        proxy: address of the counting proxy.
        videos: in the corpus.
    """

    def __init__(self, proxy: str, videos: int) -> None:
        self._proxy, self._videos = proxy, videos
        self._before_bytes: int | None = None
        self.found: list[Measurement] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block."""
        if self._before_bytes is None:
            gc.collect()
            self._before_bytes = _status_bytes("VmRSS")
        counts, begun_s = counting_proxy.counts_at(self._proxy), time.monotonic()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew from here
        yield
        seconds = time.monotonic() - begun_s
        peak_bytes = max(0, _status_bytes("VmHWM") - self._before_bytes)
        requests = dict(counting_proxy.counts_at(self._proxy) - counts)
        self.found.append(Measurement(name, self._videos, seconds, peak_bytes, requests))


def _status_bytes(key: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024
