"""Frozen base weights: in no checkpoint, average or full state, and read again on resume."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ray_jobs.training import runs, trials
from tests.ray_jobs.training.adapter import ADAPTER, Adapter, write_base
from tests.ray_jobs.training.trials import SAVED_AT

pytestmark = pytest.mark.timeout(600)
ZERO = {
    "0": {}, "1": {"zero_stage": 1}, "2": {"zero_stage": 2}, "3": {"zero_stage": 3},
    "2-bf16": {"zero_stage": 2, "precision": "bf16"},
    "3-bf16": {"zero_stage": 3, "precision": "bf16"},
}  # fmt: skip


def work(data: dict[str, str], folder: str, initial: object) -> None:
    for name, settings in ZERO.items():
        trial = trials.Trial(ADAPTER, settings, data, initial)  # pyright: ignore[reportArgumentType]
        trials.straight_and_resumed(trial, f"{folder}/{name}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    initial = write_base(folder / "base")
    trials.start(2, work, runs.write_data(folder), str(folder), initial)
    return folder


@pytest.mark.parametrize("name", ZERO)
def test_a_checkpoint_holds_none_of_the_base(trained: Path, name: str) -> None:
    base = (trained / "base" / "model.safetensors").stat().st_size
    files = [file for file in (trained / name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < base / 4
    assert base > 700_000


@pytest.mark.parametrize("name", ZERO)
def test_a_resumed_run_equals_a_straight_one(trained: Path, name: str) -> None:
    losses = json.loads((trained / f"{name}.json").read_text())
    assert losses[SAVED_AT:] == json.loads((trained / f"{name}-again.json").read_text())
    straight = load_file(trained / f"{name}-straight")
    resumed = load_file(trained / f"{name}-resumed")
    assert straight.keys() == resumed.keys()
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize("name", ZERO)
def test_states_and_averages_hold_what_is_not_frozen(trained: Path, name: str) -> None:
    state = load_file(trained / f"{name}-straight")
    own = {key for key in Adapter().state_dict() if not key.startswith("base.")}
    assert state.keys() == own | {f"ema.{key}" for key in own}


@pytest.mark.parametrize("name", ["1", "2", "3"])
def test_every_zero_stage_trains_the_same(trained: Path, name: str) -> None:
    expected = load_file(trained / "0-straight")
    for key, tensor in load_file(trained / f"{name}-straight").items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize("name", ZERO)
def test_asynchronous_validation_reads_the_base_too(trained: Path, name: str) -> None:
    judged = json.loads((trained / f"{name}-judged.json").read_text())
    for inline, asynchronous in judged.values():
        assert asynchronous == pytest.approx(inline, rel=1e-2 if "bf16" in name else 1e-6)
