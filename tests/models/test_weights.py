"""Tensors on disk: the round trip, the refusals, and no unpickling."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from infra.errors import UserError
from models import weights


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    built = model()
    built(torch.rand(5, 3))  # moves the running means
    path = tmp_path / weights.WEIGHTS_FILE
    weights.save(built.state_dict(), path)
    return path


def rewrite(file: Path, **changes: torch.Tensor | None) -> None:
    state = weights.load_state(file) | changes
    save_file({key: value for key, value in state.items() if value is not None}, file)


def test_round_trip(file: Path) -> None:
    filled = model()
    weights.load_into(filled, file)
    state = weights.load_state(file)
    assert int(filled.get_buffer("1.num_batches_tracked")) == 1
    assert all(torch.equal(value, state[key]) for key, value in filled.state_dict().items())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_missing_unexpected_and_misshaped_keys_are_named_in_one_line(file: Path) -> None:
    rewrite(file, **{"0.bias": None, "extra": torch.zeros(1), "0.weight": torch.zeros(4, 2)})
    built = model()
    before = built.get_parameter("0.weight").detach().clone()
    with pytest.raises(UserError) as caught:
        weights.load_into(built, file)
    text = str(caught.value)
    assert "missing 0.bias" in text
    assert "unexpected extra" in text
    assert "misshaped 0.weight float[4, 2] where the model has float[4, 3]" in text
    assert "\n" not in text
    assert torch.equal(built.get_parameter("0.weight"), before)


class Bomb:
    """Fails the test when unpickled."""

    def __reduce__(self) -> tuple:
        """Name a call that runs on load."""
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "text", "empty"])
def test_other_formats_are_refused_unopened(file: Path, kind: str) -> None:
    if kind == "torch":
        torch.save({"a": Bomb()}, file)
    else:
        file.write_bytes({"pickle": pickle.dumps(Bomb()), "text": b"hello", "empty": b""}[kind])
    with pytest.raises(UserError, match="not a safetensors file"):
        weights.load_state(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: not found"):
        weights.load_state(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"model.safetensors: not found"):
        weights.load_state(tmp_path)


def test_fingerprint_follows_the_bytes_of_all_files(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "config.json"
    other.write_text("{}")
    first = weights.fingerprint(file)
    assert len(first) == 16
    assert first == weights.fingerprint(file.parent)
    both = weights.fingerprint(file, other)
    rewrite(file, **{"0.bias": torch.zeros(4)})
    assert len({first, both, weights.fingerprint(file), weights.fingerprint(file, other)}) == 4


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    weights.save(tied.state_dict(), tmp_path / "a.safetensors")
    state = weights.load_state(tmp_path / "a.safetensors")
    assert torch.equal(state["0.weight"], state["1.weight"])
