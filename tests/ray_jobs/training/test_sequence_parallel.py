"""Ranks that share sequences train as one rank does, under every ZeRO stage (gloo, without Ray)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ray_jobs.training import batches
from ray_jobs.training.telemetry import Window
from tests.ray_jobs.training import runs, trials
from tests.ray_jobs.training.trials import SAVED_AT, Trial

pytestmark = pytest.mark.timeout(600)
KIND, SHARING = "autoregressive", 2
ZERO = {
    "0": {}, "1": {"zero_stage": 1}, "2": {"zero_stage": 2}, "3": {"zero_stage": 3},
    "1-bf16": {"zero_stage": 1, "precision": "bf16"},
    "3-bf16": {"zero_stage": 3, "precision": "bf16"},
}  # fmt: skip


def log(trial: Trial, file: Path) -> None:
    """Write what a line of the log would say of a step: tokens and operations of all ranks."""
    run, engine = trial.begin()
    samples = batches.batch(trial.loader, 0, run.group, run.groups)
    window = Window()
    flops = run.flops.count(engine, trial.stage, samples)
    loss, metrics, units = run._step(engine, trial.stage, samples)
    window.stepped(loss, metrics, units, flops)
    figures = window.close(run.workers, run.groups)
    run.validation.begin_stage(trial.stage)
    judged = run.validation._judge(engine.module)
    engine.close()
    assert (judged is None) == (trial.rank > 0)
    if trial.rank == 0:
        file.write_text(json.dumps([figures.units, figures.flops, figures.loss]))


def one_rank(data: dict[str, str], folder: Path) -> None:
    trial = Trial(KIND, {}, data)
    trials.straight(trial, str(folder / "alone"))
    log(trial, folder / "alone-log.json")


def two_ranks(data: dict[str, str], folder: Path) -> None:
    for name, settings in ZERO.items():
        trial = Trial(
            KIND, {**settings, "sequence_parallel": SHARING}, data,
            recompute_activations=name in ("2", "3"),
        )  # fmt: skip
        trials.straight_and_resumed(trial, str(folder / name))
        if name == "0":
            log(trial, folder / "shared-log.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    trials.start(1, one_rank, data, folder)
    return folder


@pytest.fixture(scope="module")
def shared(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    trials.start(2, two_ranks, data, folder)
    return folder


def assert_close(found: Path, expected: Path) -> None:
    state = load_file(found)
    for key, tensor in load_file(expected).items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-3, atol=3e-5, msg=key)


@pytest.mark.parametrize("name", ZERO)
def test_resumes_to_the_bit(shared: Path, name: str) -> None:
    losses = json.loads((shared / f"{name}.json").read_text())
    assert losses[SAVED_AT:] == json.loads((shared / f"{name}-again.json").read_text())
    resumed = load_file(shared / f"{name}-resumed")
    for key, tensor in load_file(shared / f"{name}-straight").items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize("name", ZERO)
def test_two_ranks_train_as_one(alone: Path, shared: Path, name: str) -> None:
    expected = json.loads((alone / "alone.json").read_text())
    losses = json.loads((shared / f"{name}.json").read_text())
    assert losses == pytest.approx(expected, rel=5e-3 if "bf16" in name else 1e-5)
    if "bf16" not in name:
        assert_close(shared / f"{name}-straight", alone / "alone-straight")


def test_the_log_counts_every_token_once(alone: Path, shared: Path) -> None:
    tokens, flops, loss = json.loads((alone / "alone-log.json").read_text())
    found_tokens, found_flops, found_loss = json.loads((shared / "shared-log.json").read_text())
    assert found_tokens == tokens == 4 * 8  # clips of 8 tokens
    assert found_loss == pytest.approx(loss, rel=1e-5)
    # Sequences of 13 tokens are filled up to 14, and text is asked what follows it too.
    assert flops < found_flops < 1.3 * flops
