"""The decoder is LLaMA: goldens, transformers' own model, sizes, and causality."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.autoregressive.cache import KVCache
from models.autoregressive.loong import LOONG_3B, LOONG_7B, LOONG_700M, ARConfig, LongtakeLlama
from models.autoregressive.loong.vocabulary import Vocabulary

GOLDEN = Path(__file__).parents[3] / "golden"


def load_golden(name: str) -> tuple[LongtakeLlama, dict[str, torch.Tensor]]:
    settings = json.loads((GOLDEN / f"{name}.json").read_text())["config"]
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    config = ARConfig(
        vocabulary=Vocabulary(text=100, video=settings["vocab"] - 110),
        hidden=settings["hidden"],
        intermediate=settings["intermediate"],
        layers=settings["layers"],
        heads=settings["heads"],
        kv_heads=settings["kv_heads"],
        rope_theta=settings["rope_theta"],
        norm_eps=settings["rms_norm_eps"],
        tied=settings["tied"],
    )
    model = LongtakeLlama(config).eval()
    model.load_state_dict(
        {key.removeprefix("w."): value for key, value in tensors.items() if key[:2] == "w."}
    )
    return model, tensors


def greedy(model: LongtakeLlama, ids: torch.Tensor, count: int, cached: bool) -> torch.Tensor:
    cache = KVCache(model.config, len(ids), ids.shape[1] + count) if cached else None
    unseen = ids
    for _ in range(count):
        hidden = model.hidden(unseen if cached else ids, cache=cache)
        unseen = model.logits(hidden[:, -1:]).argmax(dim=-1)
        ids = torch.cat((ids, unseen), dim=1)
    return ids


@pytest.mark.parametrize("name", ["llama_mha", "llama_gqa"])
@torch.no_grad()
def test_golden(name: str):
    model, golden = load_golden(name)
    ids = golden["in.input_ids"].long()
    torch.testing.assert_close(model(ids), golden["out.logits"], atol=3e-5, rtol=0)
    wanted = golden["out.greedy_ids"].long()
    for cached in (True, False):
        assert torch.equal(greedy(model, ids, 20, cached), wanted)


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_equals_transformers(tied: bool):
    transformers = pytest.importorskip("transformers")
    config = ARConfig(
        vocabulary=Vocabulary(text=60, video=40),
        hidden=64,
        intermediate=96,
        layers=3,
        heads=4,
        kv_heads=2,
        rope_theta=5000.0,
        norm_eps=1e-6,
        init_std=0.1,
        tied=tied,
    )
    torch.manual_seed(1)
    ours = LongtakeLlama(config).eval()
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**config.transformers_config())
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(0, config.vocabulary.total, (2, 33))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=3e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(LOONG_7B, 6.81e9), (LOONG_3B, 3.25e9), (LOONG_700M, 817e6)],
)
def test_paper_sizes(config: ARConfig, parameters: float):
    with torch.device("meta"):
        model = LongtakeLlama(config)
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(parameters, rel=2e-3)


@torch.no_grad()
def test_causal_at_every_position(model: LongtakeLlama):
    ids = torch.randint(0, 84, (1, 20), generator=torch.Generator().manual_seed(2))
    before = model(ids)
    for position in range(20):
        changed = ids.clone()
        changed[0, position] = (ids[0, position] + 1) % 84
        after = model(changed)
        torch.testing.assert_close(after[:, :position], before[:, :position], atol=1e-5, rtol=0)
        assert not torch.allclose(after[:, position], before[:, position], atol=1e-3)


@torch.no_grad()
def test_logits_of_a_slice_are_the_slice_of_the_logits(model: LongtakeLlama):
    hidden = torch.randn(2, 3, model.config.hidden)
    ids = model.config.vocabulary.video_ids
    torch.testing.assert_close(model.logits(hidden, ids), model.logits(hidden)[..., ids])


def test_recomputed_activations_give_the_same_gradients(model: LongtakeLlama):
    ids = torch.randint(0, 84, (2, 12), generator=torch.Generator().manual_seed(3))
    gradients = []
    for recompute in (False, True):
        copy = LongtakeLlama(model.config).train()
        copy.load_state_dict(model.state_dict())
        copy.recompute_activations = recompute
        copy(ids).square().mean().backward()
        gradients.append([p.grad for p in copy.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_refuses_too_long_a_sequence(model: LongtakeLlama):
    with pytest.raises(ValueError, match="129 tokens is longer than max_positions 128"):
        model.hidden(torch.zeros(1, 129, dtype=torch.long))
