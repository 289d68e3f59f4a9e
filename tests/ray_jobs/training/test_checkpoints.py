"""A checkpoint is read as data, and damage to it is found, on one rank of gloo without Ray."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

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
