"""True film over a join: what strategies change, and what temporal kernels of 1 hide."""

from typing import get_args

import pytest
import torch

from models.autoregressive.loong import ARConfig, LongtakeLlama, Vocabulary, build_batch, token_nll
from models.autoregressive.loong.continuation import Continuation, continue_film, film_frames
from models.autoregressive.loong.extension import Strategy
from models.tokenizer import VideoTokenizer
from tests.models.tokenizer.test_model import TINY, clip, tokenizer

WINDOW, KNOWN = 21, 17
TEXT = [[1, 2, 3], []]
SPATIAL, INNER = (1, 1, 1, 1), (1, 1, 3, 3)


def codec(kernels: tuple[int, int, int, int]) -> VideoTokenizer:
    return tokenizer(TINY.model_copy(update={"temporal_kernels": kernels})).eval()


@pytest.fixture(scope="module")
def model() -> LongtakeLlama:
    torch.manual_seed(0)
    vocabulary = Vocabulary(text=8, video=TINY.codebook.size)
    shape = {"hidden": 32, "intermediate": 48, "layers": 2, "heads": 4, "init_std": 0.2}
    return LongtakeLlama(ARConfig(vocabulary=vocabulary, max_text_tokens=4, **shape)).eval()


def film() -> torch.Tensor:
    return clip(film_frames(WINDOW, KNOWN), batch=2)


def continued(model: LongtakeLlama, strategy: Strategy, **changes: torch.Tensor) -> Continuation:
    x_BCFHW = changes.get("x", film())
    return continue_film(
        model, codec(INNER), TEXT[: len(x_BCFHW)], x_BCFHW, reencode_frames=KNOWN, strategy=strategy
    )


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_the_model_is_asked_for_the_true_tokens_after_the_known_ones(
    model: LongtakeLlama, strategy: Strategy
):
    coder, x = codec(INNER), film()
    fresh = coder.encode(x[:, :, WINDOW - KNOWN :])
    known = fresh[:, :5] if strategy == "re-encode" else coder.encode(x[:, :, :WINDOW])[:, -5:]
    codes = torch.cat((known, fresh[:, 5:]), dim=1)
    nll = token_nll(model, build_batch(model.config, TEXT, codes))
    made = continued(model, strategy)
    torch.testing.assert_close(made.nll_B, nll[:, 5:].flatten(1).mean(dim=1).detach())
    others = (known != fresh[:, :5]).float().flatten(1).mean(dim=1)
    torch.testing.assert_close(made.disagreement_B, others)
    assert bool(others.any()) == (strategy == "naive")


def test_the_strategies_differ(model: LongtakeLlama):
    naive, fresh = (continued(model, strategy).nll_B for strategy in ("naive", "re-encode"))
    assert not torch.allclose(naive, fresh)


def test_a_film_is_continued_whatever_it_is_batched_with(model: LongtakeLlama):
    together, alone = continued(model, "naive"), continued(model, "naive", x=film()[:1])
    torch.testing.assert_close(together.nll_B[:1], alone.nll_B, atol=1e-5, rtol=1e-5)


def test_spatial_kernels_leave_two_of_five_latent_frames_to_differ(model: LongtakeLlama):
    x = film()
    differ = {}
    for kernels in (SPATIAL, INNER):
        coder = codec(kernels)
        known, fresh = coder.encode(x[:, :, :WINDOW]), coder.encode(x[:, :, WINDOW - KNOWN :])
        differ[kernels] = (known[:, -5:] != fresh[:, :5]).any(dim=(0, 2, 3)).tolist()
    assert differ[SPATIAL][2:] == [False, False, False]  # whatever the weights
    assert any(differ[INNER][2:])
