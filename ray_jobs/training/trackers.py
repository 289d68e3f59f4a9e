"""MLflow and Weights & Biases as sinks of the log (:mod:`ray_jobs.training.sinks`).

Each works on a thread of its own and may be away: training never waits for it before its end.
What could not be sent is kept and tried again with the next line. A run of the engine is one run
there, however often it was resumed: it is found by its key, and says itself which lines it has.
"""

import importlib.util
import io
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, Protocol

from PIL import Image

from data_prep.sampling import VALIDATION
from infra import storage
from infra.errors import UserError, one_line
from infra.log import logger
from ray_jobs.training.config import TrackingConfig
from ray_jobs.training.sinks import Record, Sink, saved_pictures
from ray_jobs.training.tracked_runs import MlflowRun, Tracked, WandbRun

TRACKING = "tracking.json"
CLOSING_S = 300.0
"""Longest wait for a service when the run has ended."""
_LINES_AT_ONCE = 25  # MLflow takes 1,000 figures in a request
_PACKAGES = {"mlflow": "mlflow-skinny==3.17.2", "wandb": "wandb==0.30.0"}


def check_installed(settings: TrackingConfig) -> None:
    """Raise UserError if a package is missing that the settings ask for."""
    for name, pin in _PACKAGES.items():
        if getattr(settings, name) is not None and importlib.util.find_spec(name) is None:
            raise UserError(f"run.tracking.{name}: needs a package: pip install {pin}")


def key_of(output: str) -> str:
    """Return the key of the run at an output, which is drawn once and kept there."""
    uri = storage.join(output, TRACKING)
    if not storage.exists(uri):
        storage.write_json(uri, {"run": os.urandom(8).hex()})
    return storage.read_json(uri)["run"]


def trackers(settings: TrackingConfig, tracked: Tracked) -> list[Sink]:
    """Return the sinks that the settings ask for."""
    found: list[Sink] = []
    if (mlflow := settings.mlflow) is not None:
        found.append(Tracker("MLflow", lambda: MlflowRun(mlflow, tracked), tracked.output))
    if (wandb := settings.wandb) is not None:
        found.append(Tracker("Weights & Biases", lambda: WandbRun(wandb, tracked), tracked.output))
    return found


class Run(Protocol):
    """The run at a service, opened anew or gone on with."""

    sent: dict[str, int]
    """The last step that it has of each split."""

    def send(self, records: list[Record]) -> None:
        """Add lines, none of which it has."""
        ...

    def picture(self, name: str, step: int, image: Image.Image) -> None:
        """Add a picture of a step."""
        ...

    def flush(self) -> None:
        """Bring to the artifact what it holds on the local disk."""
        ...

    def end(self, finished: bool) -> None:
        """Close the run, and bring the rest."""
        ...


_FLUSH, _FINISHED, _LEFT = "flush", "finished", "left"
_Order = Record | Literal["flush", "finished", "left"]


class Tracker:
    """A service as a sink.

    Args:
        name: of the service, for messages.
        open_run: opens the run there, on this sink's thread.
        output: URI of the artifact, where pictures are.
    """

    def __init__(self, name: str, open_run: Callable[[], Run], output: str) -> None:
        self._name, self._open, self._output = name, open_run, output
        self._run: Run | None = None
        self._away = False
        self._unsent = deque[Record]()
        self._orders = queue.SimpleQueue[_Order]()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def write(self, record: Record) -> None:
        """Send the line, soon."""
        self._orders.put(record)

    def flush(self, log: list[Record]) -> None:
        """Bring the local files of the service to the artifact, soon."""
        self._orders.put(_FLUSH)

    def close(self, finished: bool) -> None:
        """Wait until all is sent, or it will not be."""
        self._orders.put(_FINISHED if finished else _LEFT)
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            logger.warning(f"{self._name}: no end after {CLOSING_S:.0f} s; leaving it")

    def _serve(self) -> None:
        ended = False
        while not ended:
            orders = [self._orders.get(), *_waiting(self._orders)]
            self._unsent += [order for order in orders if isinstance(order, dict)]
            ended = _FINISHED in orders or _LEFT in orders
            try:
                self._send()
                if self._run is not None and ended:
                    self._run.end(_FINISHED in orders)
                elif self._run is not None and _FLUSH in orders:
                    self._run.flush()
            except Exception as error:
                self._say_once(error)
                self._run = None

    def _send(self) -> None:
        if self._run is None:
            self._run = self._open()
        while self._unsent:
            lines = list(islice(self._unsent, _LINES_AT_ONCE))
            new = [r for r in lines if r["step"] > self._run.sent.get(r["split"], 0)]
            if new:
                self._run.send(new)
            for _ in lines:
                self._unsent.popleft()
            for step in (record["step"] for record in new if record["split"] == VALIDATION):
                self._send_pictures(self._run, step)

    def _send_pictures(self, run: Run, step: int) -> None:
        try:
            for name, png in saved_pictures(self._output, step).items():
                run.picture(name.removesuffix(".png"), step, Image.open(io.BytesIO(png)))
        except Exception as error:  # they have a store of their own, and figures do without
            self._say_once(error)

    def _say_once(self, error: Exception) -> None:
        """Whatever a service's client raises, training goes on."""
        if not self._away:
            logger.warning(
                f"{self._name}: {one_line(error)}; training goes on, metrics.jsonl has its figures"
            )
        self._away = True


def _waiting(orders: queue.SimpleQueue[_Order]) -> Iterator[_Order]:
    while not orders.empty():
        yield orders.get()
