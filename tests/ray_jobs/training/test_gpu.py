"""Engines on a GPU: as on a CPU, and to the bit from a checkpoint (one rank, nccl)."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ray_jobs.training import runs, trials
from tests.ray_jobs.training.trials import SAVED_AT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SETTINGS = {
    "0": {}, "1": {"zero_stage": 1}, "2": {"zero_stage": 2}, "3": {"zero_stage": 3},
    "1-bf16": {"zero_stage": 1, "precision": "bf16"},
    "2-bf16": {"zero_stage": 2, "precision": "bf16"},
    "3-bf16": {"zero_stage": 3, "precision": "bf16"},
    "1-fp16": {"zero_stage": 1, "precision": "fp16"},
}  # fmt: skip


def cases() -> list[tuple[str, str]]:
    return [
        (kind, name)
        for kind, made in runs.KINDS.items()
        for name, settings in SETTINGS.items()
        if (made.low_precision or "precision" not in settings)
        and settings.get("zero_stage", 0) <= made.most_zero
    ]


def on_gpu(data: dict[str, str], folder: str) -> None:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    for kind, name in cases():
        trial = trials.Trial(kind, SETTINGS[name], data)
        trials.straight_and_resumed(trial, f"{folder}/{kind}-{name}")


def on_cpu(data: dict[str, str], folder: str) -> None:
    for kind in runs.KINDS:
        trials.straight(trials.Trial(kind, {}, data), f"{folder}/{kind}-cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    data = runs.write_data(folder)
    trials.start(1, on_gpu, data, str(folder), backend="nccl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("DS_ACCELERATOR", "cpu")
        trials.start(1, on_cpu, data, str(folder))
    return folder


def losses(trained: Path, name: str) -> list[float]:
    return json.loads((trained / f"{name}.json").read_text())


@pytest.mark.parametrize(("kind", "name"), cases())
def test_resumes_to_the_bit(trained: Path, kind: str, name: str) -> None:
    assert losses(trained, f"{kind}-{name}")[SAVED_AT:] == losses(trained, f"{kind}-{name}-again")
    straight = load_file(trained / f"{kind}-{name}-straight")
    resumed = load_file(trained / f"{kind}-{name}-resumed")
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize(("kind", "name"), [c for c in cases() if "fp16" not in c[1]])
def test_trains_as_on_a_cpu(trained: Path, kind: str, name: str) -> None:
    tolerance = 1e-3 if name in "0123" else 2e-2
    expected = losses(trained, f"{kind}-cpu")
    assert losses(trained, f"{kind}-{name}") == pytest.approx(expected, rel=tolerance)
    assert expected[-1] != expected[0]
