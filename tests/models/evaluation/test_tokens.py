"""Codebook usage and entropy."""

import math

import numpy as np
import pytest
import torch

from models.evaluation.tokens import unigram_entropy_nats, usage


def test_uniform_and_single() -> None:
    assert usage(torch.arange(8).view(2, 2, 2), 8).perplexity == pytest.approx(8)
    one = usage([[3, 3], [3, 3]], 8)
    assert (one.used, one.perplexity) == (1, pytest.approx(1))
    assert one.counts.tolist() == [0, 0, 0, 4, 0, 0, 0, 0]


def test_no_ids() -> None:
    none = usage(np.zeros(0, dtype=np.int64), 4)
    assert (none.used, none.perplexity) == (0, 0.0)


def test_entropy() -> None:
    assert unigram_entropy_nats([1, 1, 1, 1, 0]) == pytest.approx(math.log(4))
    assert unigram_entropy_nats([7, 0]) == 0
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert unigram_entropy_nats([3, 1]) == pytest.approx(expected)


@pytest.mark.parametrize("ids", [[4], [-1], [0.5]])
def test_bad_ids_are_refused(ids: list) -> None:
    with pytest.raises(ValueError, match="ids"):
        usage(ids, 4)


@pytest.mark.parametrize("counts", [[0, 0], [2, -1]])
def test_bad_counts_are_refused(counts: list) -> None:
    with pytest.raises(ValueError, match="counts"):
        unigram_entropy_nats(counts)
