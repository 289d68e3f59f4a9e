"""Training ends the same to the bit, whatever is killed and wherever its disk is full."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from infra.errors import UserError
from ray_jobs.training import checkpoint_index
from ray_jobs.training.config import DeepSpeedConfig
from tests.ray_jobs.training import runs

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(900)]
CASES = [
    (kind, workers, zero)
    for kind, made in runs.KINDS.items()
    for workers in (1, 2)
    for zero in range(made.most_zero + 1)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(ray_session: None, data: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    """Return where an undisturbed run of a case is; each is made once."""
    folder = tmp_path_factory.mktemp("straight")

    def made(kind: str, workers: int, zero: int) -> Path:
        output = folder / f"{kind}-{workers}-{zero}"
        if not output.exists():
            train(kind, data, output, workers, zero)
        return output

    return made


def train(kind: str, data: dict[str, str], output: Path, workers: int, zero: int, **more: Any):
    settings = DeepSpeedConfig(zero_stage=zero)  # pyright: ignore[reportArgumentType]
    runs.train(kind, data, output, workers, deepspeed=settings, **more)


def result(output: Path) -> dict[str, torch.Tensor]:
    last = {f"last.{k}": v for k, v in load_file(output / "last" / "model.safetensors").items()}
    return {**load_file(output / "model.safetensors"), **last}


def losses(output: Path) -> list[float]:
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["split"] == "train"]


def assert_same(output: Path, expected: Path) -> None:
    assert losses(output) == losses(expected)
    found = result(output)
    for name, tensor in result(expected).items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(("kind", "workers", "zero"), CASES)
def test_a_killed_worker(
    straight: Any, data: dict[str, str], tmp_path: Path, kind: str, workers: int, zero: int
):
    output = tmp_path / "out"
    calls = 8 // workers if runs.KINDS[kind].micro_batch_size else 4  # of the loss in one stage
    train(kind, data, output, workers, zero, die_in_call=calls + 1)
    assert Path(f"{output}.died").exists()
    assert_same(output, straight(kind, workers, zero))


@pytest.mark.parametrize("kind", runs.KINDS)
def test_two_workers_equal_one(straight: Any, kind: str):
    one, two = straight(kind, 1, 0), straight(kind, 2, 0)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    found = result(two)
    for name, tensor in result(one).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "zero"), [("tokenizer", 0), ("autoregressive", 2), ("dit", 3)])
def test_a_killed_driver(straight: Any, data: dict[str, str], tmp_path: Path, kind: str, zero: int):
    output, log = tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-m", "tests.ray_jobs.training.runs", kind, json.dumps(data),
               str(output), "2", str(zero)]  # fmt: skip
    with log.open("ab") as sink:  # not a pipe: Ray's processes outlive a killed driver
        driver = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink)
        while not list(output.glob("checkpoints/*/train_state.json")):
            assert driver.poll() is None, log.read_text()[-4000:]
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert not (output / "model.safetensors").exists()
        assert subprocess.run(command, cwd=ROOT, stdout=sink, stderr=sink).returncode == 0
    assert_same(output, straight(kind, 2, zero))


def count_checkpoints(output: Path) -> int:
    """A run that began anew, in place of going on, has written one of them twice."""
    return len(list(output.glob("checkpoints/*/train_state.json")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(straight: Any, data: dict[str, str], disk: Path):
    expected = straight("autoregressive", 1, 0)
    checkpoint = next(expected.glob("checkpoints/*/train_state.json")).parent
    needs = sum(file.stat().st_size for file in checkpoint.rglob("*"))
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler, output = disk / "filler", disk / "out"
    filler.write_bytes(bytes(free - 2 * needs))  # room for the first checkpoint, not for all three
    with pytest.raises(UserError, match="no space left there or in a worker's temporary folder"):
        train("autoregressive", data, output, 1, 0)
    assert not (output / "model.safetensors").exists()
    filler.unlink()
    train("autoregressive", data, output, 1, 0)
    assert_same(output, expected)


@pytest.mark.parametrize("record", ["", '{"ray_version": "0", "checkpoint_results": []}', None])
def test_a_lost_record_of_checkpoints(
    straight: Any, data: dict[str, str], tmp_path: Path, record: str | None
):
    """Ray Train's record is cut short, of another Ray, or names a checkpoint that is gone."""
    expected, output = straight("autoregressive", 1, 0), tmp_path / "out"
    shutil.copytree(expected, output)
    (output / "model.safetensors").unlink()
    shutil.rmtree(max(output.glob("checkpoints/*/train_state.json")).parent)
    if record is not None:
        (output / "checkpoints" / checkpoint_index.RECORD).write_text(record)
    train("autoregressive", data, output, 1, 0)
    assert_same(output, expected)
    assert count_checkpoints(output) == count_checkpoints(expected)
