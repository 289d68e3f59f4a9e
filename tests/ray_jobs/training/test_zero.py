"""Every ZeRO stage trains the same, and goes on from a checkpoint to the bit (two ranks, gloo).

Without Ray, which has no part in it; `tests/faults/test_training.py` proves the same through
Ray Train, with workers killed.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.ray_jobs.training import runs, trials
from tests.ray_jobs.training.trials import SAVED_AT

pytestmark = pytest.mark.timeout(600)
RANKS = 2
ZERO = {
    "0": {}, "1": {"zero_stage": 1}, "2": {"zero_stage": 2}, "3": {"zero_stage": 3},
    "2-offload": {"zero_stage": 2, "offload_optimizer": True},
    "3-offload": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
    "1-bf16": {"zero_stage": 1, "precision": "bf16"},
    "2-bf16": {"zero_stage": 2, "precision": "bf16"},
    "3-bf16": {"zero_stage": 3, "precision": "bf16"},
}  # fmt: skip


def cases() -> list[tuple[str, str]]:
    return [
        (kind, name)
        for kind, made in runs.KINDS.items()
        for name, settings in ZERO.items()
        if (made.low_precision or "precision" not in settings)
        and settings.get("zero_stage", 0) <= made.most_zero
    ]


def work(data: dict[str, str], folder: str) -> None:
    for kind, name in cases():
        trials.straight_and_resumed(trials.Trial(kind, ZERO[name], data), f"{folder}/{kind}-{name}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    trials.start(RANKS, work, runs.write_data(folder), str(folder))
    return folder


@pytest.mark.parametrize("name", [name for kind, name in cases() if kind == "adversarial"])
def test_the_discriminator_has_not_stood_aside(trained: Path, name: str) -> None:
    assert load_file(trained / f"adversarial-{name}-straight")["discriminator.averaged"] > 0


@pytest.mark.parametrize(("kind", "name"), cases())
def test_resumes_to_the_bit(trained: Path, kind: str, name: str) -> None:
    losses = json.loads((trained / f"{kind}-{name}.json").read_text())
    assert losses[SAVED_AT:] == json.loads((trained / f"{kind}-{name}-again.json").read_text())
    straight = load_file(trained / f"{kind}-{name}-straight")
    resumed = load_file(trained / f"{kind}-{name}-resumed")
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize(("kind", "name"), [c for c in cases() if "bf16" not in c[1]])
def test_every_stage_trains_the_same(trained: Path, kind: str, name: str) -> None:
    expected = load_file(trained / f"{kind}-0-straight")
    found = load_file(trained / f"{kind}-{name}-straight")
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize(("kind", "name"), cases())
def test_asynchronous_validation_gives_the_same_figures(
    trained: Path, kind: str, name: str
) -> None:
    judged = json.loads((trained / f"{kind}-{name}-judged.json").read_text())
    for inline, asynchronous in judged.values():
        assert asynchronous == pytest.approx(inline, rel=1e-4 if "bf16" in name else 0, abs=0)
    assert judged["last"] != judged["average"]


@pytest.mark.parametrize("kind", ["autoregressive", "dit"])
def test_bf16_is_near_and_its_master_weights_are_not_rounded(trained: Path, kind: str) -> None:
    expected = json.loads((trained / f"{kind}-0.json").read_text())
    for name in ("1-bf16", "2-bf16", "3-bf16"):
        found = json.loads((trained / f"{kind}-{name}.json").read_text())
        assert found == pytest.approx(expected, rel=5e-3)
        weights = load_file(trained / f"{kind}-{name}-straight")
        assert any(not torch.equal(w, w.bfloat16().float()) for w in weights.values())


@pytest.mark.parametrize("kind", runs.KINDS)
def test_the_average_follows_the_weights(trained: Path, kind: str) -> None:
    state = load_file(trained / f"{kind}-0-straight")
    names = [name for name in state if not name.startswith("ema.")]
    assert any(not torch.equal(state[name], state[f"ema.{name}"]) for name in names)
