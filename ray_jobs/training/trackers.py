"""MLflow and Weights & Biases as sinks of the log (:mod:`ray_jobs.training.sinks`).

Each works on a thread of its own and may be away: training never waits for it before its end.
What could not be sent is kept and tried again with the next line. A run of the engine is one run
there, however often it was resumed: it is found by its key, and says itself which lines it has.
"""

import importlib.util
import io
import json
import os
import queue
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from data_prep.sampling import VALIDATION
from infra import storage
from infra.errors import UserError, one_line
from infra.progress import say
from ray_jobs.training.config import MlflowConfig, TrackingConfig, WandbConfig
from ray_jobs.training.sinks import Record, Sink, saved_pictures

TRACKING = "tracking.json"
CLOSING_S = 300.0
"""Longest wait for a service when the run has ended."""
_LINES_AT_ONCE = 25  # MLflow takes 1,000 figures in a request
_PARAMETERS_AT_ONCE = 100
_PACKAGES = {"mlflow": "mlflow-skinny==3.17.2", "wandb": "wandb==0.30.0"}
_KEY_TAG, _SENT_TAG = "longtake.run", "longtake.sent"


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run."""

    key: str
    """Names the run, however often it is resumed."""
    output: str
    """URI of the artifact."""
    parameters: dict[str, Any]
    """The job's config, a tree."""


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
            say(f"{self._name}: no end after {CLOSING_S:.0f} s; leaving it")

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
            say(f"{self._name}: {one_line(error)}; training goes on, metrics.jsonl has its figures")
        self._away = True


def _waiting(orders: queue.SimpleQueue[_Order]) -> Iterator[_Order]:
    while not orders.empty():
        yield orders.get()


class MlflowRun:
    """A run of MLflow; a tag of it, written with the figures, says which lines it has."""

    def __init__(self, settings: MlflowConfig, tracked: Tracked) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the sink tries again
        from mlflow import MlflowClient, entities

        self._entities, self._client = entities, MlflowClient(settings.tracking_uri)
        experiment = self._experiment(settings)
        found = self._client.search_runs([experiment], f"tags.`{_KEY_TAG}` = '{tracked.key}'")
        run = found[0] if found else self._client.create_run(
            experiment, tags={_KEY_TAG: tracked.key}, run_name=storage.name(tracked.output)
        )  # fmt: skip
        self._id: str = run.info.run_id
        self.sent: dict[str, int] = json.loads(run.data.tags.get(_SENT_TAG, "{}"))
        self._client.update_run(self._id, status="RUNNING")
        there = run.data.params  # of a run that was cut off in the middle, some
        new = {k: v for k, v in parameters(tracked.parameters).items() if k not in there}
        pairs = [entities.Param(name, value) for name, value in new.items()]
        for first in range(0, len(pairs), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=pairs[first : first + _PARAMETERS_AT_ONCE])

    def _experiment(self, settings: MlflowConfig) -> str:
        found = self._client.get_experiment_by_name(settings.experiment)
        if found is not None:
            return found.experiment_id
        scheme, _, file = settings.tracking_uri.partition(":///")
        # a server has a place for pictures; without one they go beside the database
        place = f"{file}.artifacts" if scheme == "sqlite" else None
        return self._client.create_experiment(settings.experiment, artifact_location=place)

    def send(self, records: list[Record]) -> None:
        """Log the figures, and that they are here."""
        now_ms = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(name, value, now_ms, record["step"])
            for record in records
            for name, value in figures(record).items()
        ]
        self.sent |= {record["split"]: record["step"] for record in records}
        tag = self._entities.RunTag(_SENT_TAG, json.dumps(self.sent))
        self._client.log_batch(self._id, metrics=metrics, tags=[tag])

    def picture(self, name: str, step: int, image: Image.Image) -> None:
        """Log a picture, which MLflow shows by its step."""
        self._client.log_image(self._id, image, key=name, step=step)

    def flush(self) -> None:
        """All of it is at the server."""

    def end(self, finished: bool) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


class WandbRun:
    """A run of Weights & Biases.

    Online, its summary says which lines it has. Offline, every attempt begins its file anew, as
    TensorBoard does, in ``wandb/`` of the output.
    """

    def __init__(self, settings: WandbConfig, tracked: Tracked) -> None:
        import wandb

        self._wandb, self._uri = wandb, storage.join(tracked.output, "wandb")
        self._offline = settings.mode == "offline"
        self._folder = tempfile.TemporaryDirectory(prefix="longtake-wandb-")
        self._run = wandb.init(
            project=settings.project,
            id=tracked.key,
            name=storage.name(tracked.output),
            config=tracked.parameters,
            allow_val_change=True,  # resources may
            mode=settings.mode,
            resume=None if self._offline else "allow",
            dir=self._folder.name,
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                init_timeout=30,  # seconds; the sink tries again
            ),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.sent: dict[str, int] = {} if self._offline else dict(self._run.summary.get("sent", {}))

    def send(self, records: list[Record]) -> None:
        """Log the figures, and that they are here."""
        for record in records:
            self._run.log({"step": record["step"], **figures(record)})
            self.sent[record["split"]] = record["step"]
        self._run.summary.update({"sent": self.sent})

    def picture(self, name: str, step: int, image: Image.Image) -> None:
        """Log a picture."""
        self._run.log({"step": step, f"samples/{name}": self._wandb.Image(image)})

    def flush(self) -> None:
        """Upload an offline run in place of what an earlier attempt left."""
        if self._offline:
            folder = Path(self._run.settings.sync_dir)
            storage.remove(self._uri)
            storage.upload_dir(folder, storage.join(self._uri, folder.name))

    def end(self, finished: bool) -> None:
        """Finish the run, and bring its file."""
        self._run.finish(exit_code=0 if finished else 1)
        self.flush()


def figures(record: Record) -> dict[str, float]:
    """Return the numbers of a line, by split and name."""
    return {
        f"{record['split']}/{name}": value
        for name, value in record.items()
        if isinstance(value, int | float) and name != "step"
    }


def parameters(tree: Any, path: str = "") -> dict[str, str]:
    """Return a config's values by their dotted keys, in the letters that MLflow allows."""
    if isinstance(tree, dict | list) and tree:
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        found: dict[str, str] = {}
        for key, value in pairs:
            found |= parameters(value, f"{path}.{key}" if path else str(key))
        return found
    return {re.sub(r"[^\w\-. :/]", "_", path): str(tree)}
