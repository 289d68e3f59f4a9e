"""Keeping less for the backward pass changes neither the loss nor a gradient, nor the codebook."""

import pytest
import torch

from models.tokenizer import TokenizerConfig, VideoTokenizer
from ray_jobs.training.capabilities import recompute_activations
from tests.models.tokenizer.test_model import ADAPTIVE, TINY, clip, tokenizer


def step(model: VideoTokenizer) -> tuple[torch.Tensor, int]:
    """Return the loss after a backward pass, and the bytes that were kept for it."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(clip(9, batch=2)).loss
    loss.backward()
    return loss, sum(kept.values())


@pytest.mark.parametrize("config", [TINY, ADAPTIVE], ids=["plain", "adaptive"])
def test_the_same_to_the_bit_with_less_kept(config: TokenizerConfig) -> None:
    plain, frugal = tokenizer(config).train(), tokenizer(config).train()
    assert recompute_activations(frugal)
    loss, much = step(plain)
    same, little = step(frugal)
    assert torch.equal(loss, same)
    assert little < much / 2
    for (name, one), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        assert torch.equal(one, other), name  # the quantizer ran once
    assert torch.equal(plain.quantizer.codebook, frugal.quantizer.codebook)
