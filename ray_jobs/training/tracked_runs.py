"""Runs at MLflow and Weights & Biases, each opened anew or resumed under the run's key.

W&B resumes by a fixed id (``resume="allow"``), MLflow's run is found by a tag. Each knows the last
step that it has of each split, since a resumed run sends its lines anew. What comes with Ray and
W&B does not give that: Ray's ``setup_mlflow`` begins a new run each time, and W&B drops whatever is
logged for an earlier step than the last, while asynchronous validation comes in after later steps.
"""

import json
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from infra import storage
from ray_jobs.training.config import MlflowConfig, WandbConfig
from ray_jobs.training.sinks import Record

_PARAMETERS_AT_ONCE = 100
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
