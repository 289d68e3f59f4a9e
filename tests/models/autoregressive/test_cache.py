"""Cached equals uncached, in pieces of any size, with and without padding."""

import pytest
import torch

from models.autoregressive.cache import KVCache
from models.autoregressive.loong import LongtakeLlama


def random_ids(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 84, (batch, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("pieces", [(20,), (7, 13), (1,) * 20, (5, 1, 1, 6, 7)])
@pytest.mark.parametrize("padding", [None, (0, 3, 5)])
@torch.no_grad()
def test_cached_equals_uncached(model: LongtakeLlama, pieces: tuple, padding: tuple | None):
    ids = random_ids(3, 20)
    padding_B = None if padding is None else torch.tensor(padding)
    whole = model.hidden(ids, padding_B=padding_B)
    cache = KVCache(model.config, 3, 20, padding_B=padding_B)
    parts = torch.cat([model.hidden(piece, cache=cache) for piece in ids.split(pieces, 1)], dim=1)
    for row in range(3):
        first = 0 if padding is None else padding[row]
        torch.testing.assert_close(parts[row, first:], whole[row, first:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_left_padding_changes_nothing(model: LongtakeLlama):
    ids = random_ids(1, 12)
    alone = model.hidden(ids)
    padded = torch.cat((torch.full((1, 4), model.config.vocabulary.pad), ids), dim=1)
    hidden = model.hidden(padded, padding_B=torch.tensor([4]))
    assert hidden.isfinite().all()
    torch.testing.assert_close(hidden[:, 4:], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_refuses_more_than_it_holds(model: LongtakeLlama):
    cache = KVCache(model.config, 1, 4)
    with pytest.raises(ValueError, match="holds 4 positions, 5"):
        model.hidden(random_ids(1, 5), cache=cache)
