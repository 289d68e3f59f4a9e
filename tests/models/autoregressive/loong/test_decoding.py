"""A step of generation is the model itself, at every place, for every shape of heads."""

import pytest
import torch

from models.autoregressive.cache import KVCache
from models.autoregressive.loong import LongtakeLlama, decoding
from models.autoregressive.loong.decoding import StepDecoder
from tests.models.autoregressive.conftest import TINY


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("padding", [None, (0, 2, 4)])
@pytest.mark.parametrize("block_rows", [4, 128])
@torch.no_grad()
def test_steps_equal_the_model(
    kv_heads: int, tied: bool, padding: tuple | None, block_rows: int, monkeypatch
):
    monkeypatch.setattr(decoding, "_BLOCK_ROWS", block_rows)
    torch.manual_seed(1)
    model = LongtakeLlama(TINY.model_copy(update={"kv_heads": kv_heads, "tied": tied})).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.uniform_(0.5, 2)  # else a gain left out would not show
    video = TINY.vocabulary.video_ids
    padding_B = None if padding is None else torch.tensor(padding)
    prompt = torch.randint(video.start, (3, 6))
    codes = torch.randint(TINY.vocabulary.video, (3, 9))
    whole = model.hidden(torch.cat((prompt, codes + video.start), 1), padding_B=padding_B)
    wanted = model.logits(whole[:, 6:], video)
    cache = KVCache(model.config, 3, 15, padding_B=padding_B)
    model.hidden(prompt, cache=cache)
    step = StepDecoder(model, 15)
    for place in range(9):
        scores = step(codes[:, place], cache)
        torch.testing.assert_close(scores, wanted[:, place], atol=2e-5, rtol=1e-5)
    assert cache.length == 15


def test_the_model_stays_as_it_is(model: LongtakeLlama):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    StepDecoder(model, 4)
    assert model.state_dict().keys() == before.keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
