"""Readings of Ray's Prometheus endpoints about running jobs.

Names begin with ``ray_longtake_`` there. Rates are Prometheus' business: videos per second are
``rate(ray_longtake_videos_total[1m])``, source-seconds per CPU-second the ratio of two rates.
"""

from typing import Any

from ray.util.metrics import Counter, Gauge


class Prepared:
    """Counts of `prepare`, as its driver learns of finished videos.

    Args:
        output: URI of the artifact, a tag of every count.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        by_reason = ("output", "status", "reason")
        self._videos = Counter("longtake_videos", "Videos analysed.", by_reason)
        self._clips = Counter("longtake_clips", "Clips cut.", by_reason)
        self._source = Counter("longtake_source_seconds", "Seconds of film analysed.", ("output",))
        self._cpu = Counter("longtake_cpu_seconds", "CPU-seconds that took.", ("output",))

    def add(self, tally: dict[str, Any]) -> None:
        """Count one video, or several (:func:`ray_jobs.clip_tables.tally`)."""
        self._count(self._videos, "kept", {"": tally["kept"]})
        self._count(self._videos, "filtered", tally["filtered"])
        self._count(self._videos, "quarantined", tally["quarantined"])
        self._count(self._clips, "kept", {"": tally["clips"]})
        self._count(self._clips, "filtered", tally["clips_filtered"])
        for counter, key in ((self._source, "source_seconds"), (self._cpu, "cpu_seconds")):
            if tally[key]:
                counter.inc(tally[key], {"output": self._output})

    def _count(self, counter: Counter, status: str, numbers: dict[str, int]) -> None:
        for reason, number in numbers.items():
            if number:
                tags = {"output": self._output, "status": status, "reason": reason}
                counter.inc(number, tags)


class Trained:
    """The newest figures of a training run, from its first worker.

    Args:
        output: URI of the artifact, a tag of every figure.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._figure = Gauge(
            "longtake_training", "The last line of metrics.jsonl.", ("output", "split", "name")
        )

    def set(self, record: dict[str, Any]) -> None:
        """Take in a line of the log."""
        for name, value in record.items():
            if isinstance(value, int | float):
                tags = {"output": self._output, "split": record["split"], "name": name}
                self._figure.set(value, tags)
