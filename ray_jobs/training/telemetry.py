"""Training log: records, and how they reach every sink."""

import bisect
import resource
import time
from dataclasses import dataclass

import torch

from ray_jobs.training.ranks import mean_over_ranks
from ray_jobs.training.sinks import Record, Sink

PEAK_TFLOPS = {"H200": 989.5, "H100": 989.5, "A100": 312.0, "B200": 2250.0, "L40S": 362.0}
"""Dense bf16, from the vendors' sheets (SXM where there are several), by part of the name."""


@dataclass(frozen=True)
class Figures:
    """Means over the steps since the last line, and over all workers."""

    loss: float
    metrics: dict[str, float]
    units: float
    """Frames or tokens read by all workers."""
    seconds: float
    waited: float
    """Seconds that the model waited for data."""
    flops: float
    """Floating-point operations of all workers."""


class Window:
    """Gather the steps between two lines of the log."""

    def __init__(self) -> None:
        self.last_loss: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._losses: list[float] = []
        self._metrics: dict[str, list[float]] = {}
        self._units, self._seconds, self._waited, self._flops = 0, 0.0, 0.0, 0.0
        self._clock = time.perf_counter()

    @property
    def steps(self) -> int:
        """How many steps there are since the last line."""
        return len(self._losses)

    def restart_clock(self) -> None:
        """Leave out what happened since the last step (validation, a checkpoint)."""
        self._clock = time.perf_counter()

    def waited(self) -> None:
        """Stop the data-wait clock: a batch has arrived."""
        self._waited += time.perf_counter() - self._clock

    def stepped(self, loss: float, metrics: dict[str, float], units: int, flops: float) -> None:
        """Record a finished step: its loss, metrics, units read and operations of this worker."""
        self.last_loss = loss
        self._losses.append(loss)
        for key, value in metrics.items():
            self._metrics.setdefault(key, []).append(value)
        self._units += units
        self._flops += flops
        self._seconds += time.perf_counter() - self._clock

    def close(self, workers: int, groups: int) -> Figures:
        """Return the window's figures (every worker calls this) and begin the next.

        Args:
            workers: how many.
            groups: of workers that read the same.
        """
        names = sorted(self._metrics)
        means = [_mean(self._losses), *(_mean(self._metrics[name]) for name in names)]
        flops, loss, *rest = mean_over_ranks([self._flops, *means])
        figures = Figures(
            loss=loss,
            metrics=dict(zip(names, rest, strict=True)),
            units=self._units * groups,
            seconds=max(self._seconds, 1e-9),
            waited=self._waited,
            flops=flops * workers,
        )
        self._reset()
        return figures


class Telemetry:
    """The log of one run, held by its first worker.

    Args:
        records: the lines up to the checkpoint that the run goes on from.
        sinks: told of these, and of every further line.
    """

    def __init__(self, records: list[Record], sinks: list[Sink]) -> None:
        self._records: list[Record] = []
        self._sinks = sinks
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """Add one line; one that comes late stands where its step is."""
        bisect.insort(self._records, record, key=lambda line: line["step"])
        for sink in self._sinks:
            sink.write(record)

    def flush(self) -> list[Record]:
        """Bring the log to where its sinks keep it, and return its lines."""
        for sink in self._sinks:
            sink.flush(self._records)
        return list(self._records)

    def close(self, finished: bool) -> None:
        """End; a run that has not finished may go on with another log."""
        for sink in self._sinks:
            sink.close(finished)


def speed(figures: Figures, workers: int, peak_tflops: float | None) -> dict[str, float]:
    """Return the computing speed of all workers, and its share of what their devices can do.

    Args:
        figures: of a window.
        workers: how many.
        peak_tflops: of one worker's device; None takes ``PEAK_TFLOPS``, where it is listed.
    """
    tflops = figures.flops / figures.seconds / 1e12
    if peak_tflops is None and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        peak_tflops = next((v for name, v in PEAK_TFLOPS.items() if name in device), None)
    share = {} if peak_tflops is None else {"mfu": round(tflops / workers / peak_tflops, 4)}
    return {"tflops_per_second": float(f"{tflops:.4g}"), **share}


def memory() -> dict[str, float]:
    """Return the most memory this process has held, in GiB: on its GPU, or of its own."""
    if torch.cuda.is_available():
        return {"peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3)}
    return {"peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
