"""Weights on disk: the round trip, the refusals, and no unpickling."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from infra.config import build
from infra.errors import UserError
from models import weights
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer

CONFIG = TokenizerConfig(
    height_px=16,
    width_px=16,
    channels=4,
    channel_multipliers=(1, 1, 1, 1),
    res_blocks=(0, 0, 0, 1),
    middle_blocks=0,
    groups=2,
    codebook=CVQConfig(size=16, dim=4),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = VideoTokenizer(CONFIG)
    model(torch.zeros(1, 3, 1, 16, 16))  # moves the codebook's buffers
    weights.save(model, CONFIG, tmp_path)
    return tmp_path


def rewrite(path: Path, **changes: torch.Tensor | None) -> None:
    state = weights.load_state(path) | changes
    kept = {key: value for key, value in state.items() if value is not None}
    save_file(kept, path / weights.WEIGHTS_FILE)


def test_round_trip_gives_the_same_tokens(saved: Path) -> None:
    name, tree = weights.load_config(saved)
    assert name == "video_tokenizer"
    config = build(TokenizerConfig, tree)
    assert config == CONFIG
    model = VideoTokenizer(config).eval()
    weights.load_into(model, saved)
    assert int(model.quantizer.updates) == 1
    state = weights.load_state(saved)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert {file.name for file in saved.iterdir()} == {"model.safetensors", "config.json"}


def test_missing_unexpected_and_misshaped_keys_are_named_in_one_line(saved: Path) -> None:
    rewrite(saved, **{"quantizer.updates": None, "extra": torch.zeros(1)})
    rewrite(saved, **{"quantizer.codebook": torch.zeros(8, 4)})
    model = VideoTokenizer(CONFIG)
    before = model.quantizer.codebook.detach().clone()
    with pytest.raises(UserError) as caught:
        weights.load_into(model, saved)
    text = str(caught.value)
    assert "missing quantizer.updates" in text
    assert "unexpected extra" in text
    assert "misshaped quantizer.codebook float[8, 4] where the model has float[16, 4]" in text
    assert "\n" not in text
    assert torch.equal(model.quantizer.codebook, before)


class Bomb:
    """Fails the test when unpickled."""

    def __reduce__(self) -> tuple:
        """Name a call that runs on load."""
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "text", "empty"])
def test_other_formats_are_refused_unopened(saved: Path, kind: str) -> None:
    file = saved / weights.WEIGHTS_FILE
    if kind == "torch":
        torch.save({"a": Bomb()}, file)
    else:
        file.write_bytes({"pickle": pickle.dumps(Bomb()), "text": b"hello", "empty": b""}[kind])
    with pytest.raises(UserError, match="not a safetensors file"):
        weights.load_state(saved)


def test_missing_files_and_bad_configs(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        weights.load_state(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not found"):
        weights.load_config(tmp_path / "nowhere")
    (saved / "config.json").write_text(json.dumps({"model": "other", "config": {}}))
    with pytest.raises(UserError, match="video_tokenizer"):
        weights.load_config(saved)


def test_fingerprint_follows_weights_and_config(saved: Path) -> None:
    first = weights.fingerprint(saved)
    assert len(first) == 16
    assert first == weights.fingerprint(saved) == weights.fingerprint(saved / "model.safetensors")
    rewrite(saved, **{"quantizer.updates": torch.tensor(7)})
    second = weights.fingerprint(saved)
    (saved / "config.json").write_text("{}")
    assert len({first, second, weights.fingerprint(saved)}) == 3


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    weights.save(model, CONFIG, tmp_path, name="autoregressive")
    state = weights.load_state(tmp_path)
    assert torch.equal(state["0.weight"], state["1.weight"])


def test_a_model_without_a_known_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="video_tokenizer"):
        weights.save(nn.Linear(2, 2), CONFIG, tmp_path)
