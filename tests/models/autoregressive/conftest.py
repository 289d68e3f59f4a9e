"""A tiny decoder for all tests of this folder."""

import pytest
import torch

from models.autoregressive.loong import ARConfig, LongtakeLlama, Vocabulary
from models.codec import CausalFrames, CodecSpec, Codes

TINY = ARConfig(
    vocabulary=Vocabulary(text=50, video=24),
    hidden=32,
    intermediate=48,
    layers=2,
    heads=4,
    kv_heads=2,
    init_std=0.2,  # far from uniform, so that a wrong state shows
    max_text_tokens=8,
    max_positions=128,
)


CODEC = CodecSpec(
    time=CausalFrames(stride=4), space_stride=8, latent=Codes(codebook_size=TINY.vocabulary.video)
)
"""Of the clips that it is trained on."""


@pytest.fixture(scope="session")
def model() -> LongtakeLlama:
    torch.manual_seed(0)
    return LongtakeLlama(TINY).eval()
