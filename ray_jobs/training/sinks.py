"""Sinks of the training log: files of the artifact, TensorBoard and Prometheus."""

import json
import tempfile
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from infra import storage
from ray_jobs.metrics import Trained

Record = dict[str, Any]
"""One line of the log: ``step``, ``stage``, ``split``, and figures."""
SAMPLES = "samples"


class Sink(Protocol):
    """One place that the log of a run goes to."""

    def write(self, record: Record) -> None:
        """Take in one line; of a run that goes on, all lines up to its checkpoint come first."""
        ...

    def flush(self, log: list[Record]) -> None:
        """Bring what was written to where it stays; `log` is all of it, in order of steps."""
        ...

    def close(self, finished: bool) -> None:
        """End, and say whether the run has come to its end."""
        ...


class Lines:
    """``metrics.jsonl``, which is the log.

    Args:
        output: URI of the artifact.
    """

    def __init__(self, output: str) -> None:
        self._uri = storage.join(output, "metrics.jsonl")

    def write(self, record: Record) -> None:
        """Wait for `flush`."""

    def flush(self, log: list[Record]) -> None:
        """Write the file whole."""
        storage.write_text(self._uri, "".join(json.dumps(record) + "\n" for record in log))

    def close(self, finished: bool) -> None:
        """There is nothing to end."""


class TensorBoard:
    """Events of every float, in ``tensorboard/``.

    Args:
        output: URI of the artifact.
    """

    def __init__(self, output: str) -> None:
        self._uri = storage.join(output, "tensorboard")
        self._folder = tempfile.TemporaryDirectory(prefix="longtake-tensorboard-")
        self._board = SummaryWriter(self._folder.name)

    def write(self, record: Record) -> None:
        """Add the line's floats."""
        for key, value in record.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{record['split']}/{key}", value, record["step"])

    def flush(self, log: list[Record]) -> None:
        """Upload the events in place of those that an earlier attempt left."""
        self._board.flush()
        storage.remove(self._uri)
        storage.upload_dir(self._folder.name, self._uri)

    def close(self, finished: bool) -> None:
        """Close the events' file."""
        self._board.close()


class Prometheus:
    """The newest line, at Ray's endpoints.

    Args:
        output: URI of the artifact.
    """

    def __init__(self, output: str) -> None:
        self._metrics = Trained(output)

    def write(self, record: Record) -> None:
        """Set the gauges."""
        self._metrics.set(record)

    def flush(self, log: list[Record]) -> None:
        """There is nothing to bring."""

    def close(self, finished: bool) -> None:
        """There is nothing to end."""


def save_pictures(output: str, step: int, pictures: dict[str, bytes]) -> None:
    """Write the pictures of a validation (file name to PNG) into ``samples/`` of the output."""
    for name, png in pictures.items():
        storage.write_bytes(storage.join(output, SAMPLES, f"{_stem(step)}{name}"), png)


def saved_pictures(output: str, step: int) -> dict[str, bytes]:
    """Return what `save_pictures` wrote."""
    stem = _stem(step)
    files = storage.list_files(storage.join(output, SAMPLES), (".png",))
    names = {file: storage.name(file) for file in files}
    return {
        name.removeprefix(stem): storage.read_bytes(file)
        for file, name in names.items()
        if name.startswith(stem)
    }


def _stem(step: int) -> str:
    return f"step_{step:07d}_"
