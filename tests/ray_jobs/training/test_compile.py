"""Compiled blocks train as eager ones do, and resume to the bit (two ranks, gloo, without Ray)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ray_jobs.training import runs, trials
from tests.ray_jobs.training.trials import SAVED_AT, Trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KIND = "autoregressive"
CASES = {
    "0": {},
    "2": {"deepspeed": {"zero_stage": 2}},
    "1-bf16": {"deepspeed": {"zero_stage": 1, "precision": "bf16"}},
    "recomputed": {"recompute_activations": True},
    "shared": {"deepspeed": {"sequence_parallel": 2}},
}


def work(data: dict[str, str], folder: str) -> None:
    trials.straight(Trial(KIND, {}, data), f"{folder}/eager")
    for name, settings in CASES.items():
        run = {"deepspeed": {}, **settings}
        trial = Trial(KIND, run.pop("deepspeed"), data, compile_blocks=True, **run)
        trials.straight_and_resumed(trial, f"{folder}/{name}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    trials.start(2, work, runs.write_data(folder), str(folder))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_resumes_to_the_bit(trained: Path, name: str) -> None:
    losses = json.loads((trained / f"{name}.json").read_text())
    assert losses[SAVED_AT:] == json.loads((trained / f"{name}-again.json").read_text())
    straight = load_file(trained / f"{name}-straight")
    resumed = load_file(trained / f"{name}-resumed")
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize("name", [name for name in CASES if "bf16" not in name])
def test_trains_as_eager_blocks_do(trained: Path, name: str) -> None:
    expected, found = (load_file(trained / f"{each}-straight") for each in ("eager", name))
    assert found.keys() == expected.keys()
    assert not any("_orig_mod" in key for key in found)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=3e-5)
