"""A checkpoint is read as data, and damage to it is found, on one rank of gloo without Ray."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ray_jobs.training import checkpoints
from tests.ray_jobs.training import runs, trials

pytestmark = pytest.mark.timeout(600)


class Bomb:
    """Leaves a file behind when unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        """Name a call that runs on load."""
        return Path.touch, (self._marker,)


def _goes_off(folder: Path, file: Path) -> dict[str, Any]:
    """Return what comes of restoring a checkpoint of which one file holds a bomb."""
    marker = folder / "went-off"
    whole = file.read_bytes()
    torch.save({**torch.load(file, weights_only=False), "more": Bomb(marker)}, file)
    error = ""
    try:
        trial = trials.Trial("autoregressive", {"zero_stage": 1}, runs.write_data(folder / "again"))
        trial.begin(str(folder / "checkpoint"))[1].close()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    file.write_bytes(whole)
    return {"error": error, "went_off": marker.exists()}


def train(data: dict[str, str], folder: str) -> None:
    trial = trials.Trial("autoregressive", {"zero_stage": 1}, data)
    run, engine = trial.begin()
    trial.steps(run, engine, 1)
    checkpoint = Path(folder, "checkpoint")
    checkpoints.save(engine, run.train_state, str(checkpoint), 0)
    engine.close()
    files = sorted(checkpoint.rglob("*.pt"))
    found = {file.name: _goes_off(Path(folder), file) for file in files}
    trial.begin(str(checkpoint))[1].close()
    Path(folder, "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    trials.start(1, train, runs.write_data(folder / "data"), str(folder))
    return folder


def test_nothing_in_a_checkpoint_is_run(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())
    assert len(found) == 2, "the model's and the optimizer's states"
    for name, outcome in found.items():
        assert not outcome["went_off"], name
        assert "UnpicklingError" in outcome["error"], name


def test_a_file_that_is_not_as_it_was_written_is_found(folder: Path) -> None:
    checkpoint = folder / "checkpoint"
    assert checkpoints.problem(str(checkpoint), 0, 1) is None
    for file in sorted(checkpoint.rglob("*.pt")):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        problem = checkpoints.problem(str(checkpoint), 0, 1)
        assert problem is not None
        assert problem.endswith(f"{file.name} is not as it was written")
        file.write_bytes(whole)
    assert checkpoints.problem(str(checkpoint), 0, 1) is None


def _problem(folder: Path, changes: Mapping[str, bytes | None], to: Path) -> str | None:
    """Return what is wrong with a copy of the checkpoint that has other files, or lacks some."""
    shutil.copytree(folder / "checkpoint", to)
    for name, data in changes.items():
        (to / name).unlink() if data is None else (to / name).write_bytes(data)
    return checkpoints.problem(str(to), 0, 1)


def test_digests_name_every_file_and_no_other(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / "checkpoint" / "sha256-0.json").read_text())
    name = next(name for name in whole if name.endswith(".pt"))
    less = {key: digest for key, digest in whole.items() if key != name}
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    more = {**whole, str(outside): hashlib.sha256(b"").hexdigest()}
    cases: dict[str, tuple[dict[str, bytes | None], str]] = {
        "none named": ({"sha256-0.json": b"{}"}, "in none of the digests"),
        "one not named": ({"sha256-0.json": json.dumps(less).encode()}, f"{name} is missing, or"),
        "one outside": ({"sha256-0.json": json.dumps(more).encode()}, f"{outside} is missing"),
        "one gone": ({name: None}, f"{name} is missing"),
        "one more": ({"more.pt": b""}, r"more.pt is missing, or in none"),
        "a list": ({"sha256-0.json": b"[]"}, "holds list; expected a map"),
        "deep": ({"sha256-0.json": b"[" * 99_999}, "not JSON"),
        "no digests": ({"sha256-0.json": None}, "No such file"),
    }
    for number, (case, (changes, message)) in enumerate(cases.items()):
        found = _problem(folder, changes, tmp_path / f"{number}")
        assert found is not None, case
        assert re.search(message, found), (case, found)


@pytest.mark.parametrize(
    "text", ["[]", '{"workers": 0}', '{"workers": "1"}', '{"step": [1]}', "[" * 99_999, '{"x": 1}']
)
def test_a_state_that_nobody_wrote_is_found(folder: Path, tmp_path: Path, text: str) -> None:
    digests = json.loads((folder / "checkpoint" / "sha256-0.json").read_text())
    digests["train_state.json"] = hashlib.sha256(text.encode()).hexdigest()
    forged = json.dumps(digests).encode()
    changes = {"train_state.json": text.encode(), "sha256-0.json": forged}
    assert _problem(folder, changes, tmp_path / "checkpoint") is not None


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = checkpoints.TrainState(
        stage=1,
        records=[{"step": 1, "loss": 2.5, "more": {"a": None}}],
        losses=[2.0, 3.5],
        pending=checkpoints.PendingValidation(3, 1),
    )
    (tmp_path / "train_state.json").write_text(json.dumps(asdict(state)))
    assert checkpoints.read_train_state(str(tmp_path)) == state
    state.losses = [math.nan, math.inf]
    (tmp_path / "train_state.json").write_text(json.dumps(asdict(state)))
    assert str(checkpoints.read_train_state(str(tmp_path))) == str(state)


def train_two(data: dict[str, str], folder: str) -> None:
    rank = dist.get_rank()
    trial = trials.Trial("autoregressive", {"zero_stage": 2}, data)
    run, engine = trial.begin()
    trial.steps(run, engine, 1)
    run.train_state.workers = 2
    checkpoints.save(engine, run.train_state, str(Path(folder, f"rank-{rank}")), rank)
    engine.close()


def test_a_checkpoint_of_two_ranks_is_whole_with_the_files_of_both(tmp_path: Path) -> None:
    trials.start(2, train_two, runs.write_data(tmp_path / "data"), str(tmp_path))
    both = tmp_path / "both"
    for rank in range(2):  # as Ray Train brings them together
        shutil.copytree(tmp_path / f"rank-{rank}", both, dirs_exist_ok=True)
    for rank in range(2):
        assert checkpoints.problem(str(both), rank, 2) is None
    assert checkpoints.problem(str(both), 0, 1) is None
    assert checkpoints.problem(str(tmp_path / "rank-0"), 0, 2) is not None
