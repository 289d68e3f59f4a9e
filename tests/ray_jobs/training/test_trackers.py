"""MLflow and Weights & Biases: what they hold is the log, once, whatever happened on the way."""

import io
import json
import logging
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image
from pydantic import ValidationError
from wandb.proto import wandb_internal_pb2

from infra.errors import UserError
from infra.log import logger
from ray_jobs.training.config import MlflowConfig, TrackingConfig, WandbConfig
from ray_jobs.training.sinks import Lines, TensorBoard, save_pictures
from ray_jobs.training.telemetry import Telemetry
from ray_jobs.training.tracked_runs import Tracked, parameters
from ray_jobs.training.trackers import check_installed, key_of, trackers

CONFIG = {"seed": 1, "stages": [{"name": "a", "steps": 4}], "run": {"multiples": {"*.book": 10.0}}}
OFFLINE = TrackingConfig(wandb=WandbConfig(project="films", mode="offline"))


def mlflow(folder: Path) -> TrackingConfig:
    return TrackingConfig(mlflow=MlflowConfig(tracking_uri=f"sqlite:///{folder}/mlflow.db"))


def lines(first: int, last: int, seconds: float = 1.0) -> list[dict[str, Any]]:
    """What a run writes from one step to another: each validates every second step."""
    made = []
    for step in range(first, last + 1):
        place = {"step": step, "stage": "a"}
        made.append({**place, "split": "train", "loss": 1 / step, "seconds": step * seconds})
        if step % 2 == 0:
            made.append({**place, "split": "validation", "loss": 2 / step, "windows": 3})
    return made


def open_log(settings: TrackingConfig, output: Path, records: list[dict[str, Any]]) -> Telemetry:
    uri = str(output)
    services = trackers(settings, Tracked(key_of(uri), uri, CONFIG))
    return Telemetry(records, [Lines(uri), TensorBoard(uri), *services])


def write(log: Telemetry, output: Path, records: list[dict[str, Any]]) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(picture, "PNG")
    for record in records:
        if record["split"] == "validation":
            save_pictures(str(output), record["step"], {"frames.png": picture.getvalue()})
        log.write(record)
    log.flush()


def cut_back_and_gone_on(settings: TrackingConfig, output: Path) -> None:
    """Train to step 3, lose what came after step 1, and go on from there to step 4."""
    log = open_log(settings, output, [])
    write(log, output, lines(1, 3))
    log.close(False)
    log = open_log(settings, output, lines(1, 1))
    write(log, output, lines(2, 4, seconds=1.5))
    log.close(True)


def history(folder: Path, experiment: str = "longtake") -> tuple[Any, dict[str, list[Any]]]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    metrics = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return run, metrics


def wandb_records(output: Path) -> list[Any]:
    """Read the one offline run back: LevelDB's log format, of protobuf records."""
    (file,) = output.glob("wandb/offline-run-*/*.wandb")
    data, at, parts, records = file.read_bytes(), 7, b"", []  # 7: ":W&B", its version
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:  # no header fits into the rest of a block
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            records.append(wandb_internal_pb2.Record.FromString(parts))  # pyright: ignore[reportAttributeAccessIssue]  # made at import
            parts = b""
    return records


def wandb_history(output: Path) -> list[dict[str, Any]]:
    return [
        {(item.key or item.nested_key[0]): json.loads(item.value_json)
         for item in record.history.item}
        for record in wandb_records(output)
        if record.WhichOneof("record_type") == "history"
    ]  # fmt: skip


def test_mlflow_has_every_figure_once_after_a_run_was_cut_back(tmp_path: Path) -> None:
    cut_back_and_gone_on(mlflow(tmp_path), tmp_path / "out")
    run, metrics = history(tmp_path)
    assert metrics["train/loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert metrics["validation/loss"] == [(2, 1.0), (4, 0.5)]
    assert metrics["validation/windows"] == [(2, 3.0), (4, 3.0)]
    assert [step for step, _ in metrics["train/seconds"]] == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "seed": "1", "stages.0.name": "a", "stages.0.steps": "4", "run.multiples._.book": "10.0"
    }  # fmt: skip
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    pictures = [f.path for f in client.list_artifacts(run.info.run_id, "images")]
    steps = Counter(name.split("+step+")[1][0] for name in pictures if name.endswith(".png"))
    assert steps == {"2": 1, "4": 1}


def test_wandb_has_every_figure_once_after_a_run_was_cut_back(tmp_path: Path) -> None:
    output = tmp_path / "out"
    cut_back_and_gone_on(OFFLINE, output)
    rows = wandb_history(output)
    loss = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert loss == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    judged = [(row["step"], row["validation/loss"]) for row in rows if "validation/loss" in row]
    assert judged == [(2, 1.0), (4, 0.5)]
    pictured = [row["step"] for row in rows if "samples/frames" in row]
    assert pictured == [2, 4]
    (run,) = [r.run for r in wandb_records(output) if r.WhichOneof("record_type") == "run"][:1]
    assert (run.run_id, run.project) == (key_of(str(output)), "films")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["stages"] == CONFIG["stages"]
    assert len(list(output.glob("wandb/*/files/media/images/samples/*.png"))) == 2


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Hold the lines that the log is given, from whichever thread."""
    heard: list[str] = []

    class Hears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    handler = Hears()
    logger.addHandler(handler)
    yield heard
    logger.removeHandler(handler)


def test_a_service_that_fails_in_the_middle_gets_the_rest_later(
    tmp_path: Path, said: list[str]
) -> None:
    output, table = tmp_path / "out", "ALTER TABLE {} RENAME TO {}"
    log = open_log(mlflow(tmp_path), output, [])
    write(log, output, lines(1, 1))
    wait_for(lambda: len(history(tmp_path)[1]["train/loss"]) == 1)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(table.format("metrics", "gone"))
    write(log, output, lines(2, 2))
    wait_for(lambda: said)
    write(log, output, lines(3, 3))
    written = (output / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == lines(1, 3)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(table.format("gone", "metrics"))
    write(log, output, lines(4, 4))
    log.close(True)
    (line,) = said
    assert line.startswith("MLflow: ")
    assert "training goes on" in line
    _, metrics = history(tmp_path)
    assert [step for step, _ in metrics["train/loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["mlflow", pytest.param("wandb", marks=pytest.mark.slow)])
def test_a_service_that_is_never_there(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("WANDB_BASE_URL", nowhere)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = {
        "mlflow": TrackingConfig(mlflow=MlflowConfig(tracking_uri=nowhere)),
        "wandb": TrackingConfig(wandb=WandbConfig()),
    }[name]
    log = open_log(settings, tmp_path, [])
    write(log, tmp_path, lines(1, 2))
    write(log, tmp_path, lines(3, 4))
    log.close(True)
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == lines(1, 4)
    assert capfd.readouterr().err.count("training goes on") == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(OFFLINE)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r"run\.tracking\.wandb: needs a package: pip install wandb"
    ):
        check_installed(OFFLINE)
    check_installed(TrackingConfig())


def test_addresses_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"allowed are a server .* or databricks"):
        MlflowConfig(tracking_uri="mlruns")
    with pytest.raises(ValidationError, match="no passwords here"):
        MlflowConfig(tracking_uri="https://me:secret@example.org")
    monkeypatch.chdir(tmp_path)
    assert MlflowConfig(tracking_uri="sqlite:///a.db").tracking_uri == f"sqlite:///{tmp_path}/a.db"


def test_a_run_keeps_its_key(tmp_path: Path) -> None:
    assert key_of(str(tmp_path / "a")) == key_of(str(tmp_path / "a"))
    assert key_of(str(tmp_path / "a")) != key_of(str(tmp_path / "b"))


def test_parameters_of_empty_maps_are_values() -> None:
    assert parameters({"a": {}, "b": [None, {"c": True}]}) == {
        "a": "{}", "b.0": "None", "b.1.c": "True"
    }  # fmt: skip


def wait_for(true: Any) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if true():
                return
        except Exception:  # not there yet
            pass
        time.sleep(0.02)
    raise AssertionError("never came true")
