"""The draw follows the distribution it was asked for."""

import pytest
import torch
from pydantic import ValidationError

from models.autoregressive.sampling import Sampling, draw_uniforms, sample

LOGITS = torch.tensor([0.5, -1.0, 2.0, 1.0, 0.0])


def frequencies(sampling: Sampling, count: int = 4000) -> torch.Tensor:
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = sample(LOGITS.expand(count, -1), uniform, sampling)
    return drawn.bincount(minlength=5) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_multinomial_is_the_softmax(temperature: float):
    wanted = (LOGITS / temperature).softmax(dim=0)
    drawn = frequencies(Sampling(top_k=None, temperature=temperature))
    torch.testing.assert_close(drawn, wanted, atol=1e-3, rtol=0)


def test_top_k_is_the_softmax_of_the_likeliest():
    wanted = torch.zeros(5)
    wanted[[0, 2, 3]] = LOGITS[[0, 2, 3]].softmax(dim=0)
    torch.testing.assert_close(frequencies(Sampling(top_k=3)), wanted, atol=1e-3, rtol=0)


def test_all_codes_equal_multinomial():
    assert torch.equal(frequencies(Sampling(top_k=5)), frequencies(Sampling(top_k=None)))


def test_greedy_is_the_maximum():
    assert frequencies(Sampling(top_k=1))[2] == 1


def test_edge_of_the_distribution_is_a_valid_code():
    uniform = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    drawn = sample(torch.randn(2, 5), uniform, Sampling(top_k=None))
    assert ((drawn >= 0) & (drawn < 5)).all()


def test_uniforms_belong_to_their_generator():
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = draw_uniforms(generators(1, 2), 6)
    assert torch.equal(both[1:], draw_uniforms(generators(2), 6))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    "settings",
    [{"top_k": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"guidance_scale": -0.1}],
)
def test_refuses_settings(settings: dict):
    with pytest.raises(ValidationError):
        Sampling(**settings)


def test_refuses_more_than_the_codebook():
    with pytest.raises(ValueError, match="top_k 50 is more than the 5"):
        sample(LOGITS[None], torch.zeros(1), Sampling())
