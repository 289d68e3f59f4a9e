"""Sampling of the next video token: greedy, top-k or multinomial (Loong, sec. 3.3 and 4.2).

Shapes: B batch, L tokens to draw, V ids that may come next, K ids that are kept.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from infra.config import Section


class Sampling(Section):
    """Settings of the draw. The default is the paper's choice."""

    top_k: Annotated[int, Field(ge=1)] | None = 50
    """Draw among the k likeliest codes. 1 is greedy, None is multinomial over the codebook."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it. The paper does not give one."""
    guidance_scale: Annotated[float, Field(ge=0)] = 1.0
    """Classifier-free guidance: logits are u + scale * (c - u), of the prompt (c) and of the empty
    prompt (u). 1 is off and costs nothing; any other value takes a second row for each video. It
    helps only a model that was trained with `prompt_dropout`. The paper is silent on it."""

    @property
    def guided(self) -> bool:
        """Whether the empty prompt takes part."""
        return self.guidance_scale != 1


def draw_uniforms(generators: Sequence[torch.Generator], count: int) -> Tensor:
    """Random numbers for `count` tokens of each sequence, each from its own generator.

    They are drawn ahead, so a sequence gets the same numbers whatever it is batched with.

    Returns:
        (B, count) float64 in [0, 1), on the CPU.
    """
    rows = [
        torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        for generator in generators
    ]
    return torch.stack(rows)


def guide(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Blend the scores of the prompts, first, with those of the empty prompt, after them.

    Args:
        logits_BV: (2B, V) when guided, else (B, V).
        sampling: Settings.

    Returns:
        (B, V).
    """
    if not sampling.guided:
        return logits_BV
    prompted_BV, empty_BV = logits_BV.chunk(2)
    return empty_BV.lerp(prompted_BV, sampling.guidance_scale)


def sample(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> Tensor:
    """Draw one code per row by inverting the cumulative distribution.

    Args:
        logits_BV: Scores of the ids that may come next, and of no others.
        uniform_B: Numbers in [0, 1) that decide the draw; unused when greedy.
        sampling: Settings.

    Returns:
        (B,) indices into V.

    Raises:
        ValueError: If top_k is more than V.
    """
    choices = logits_BV.shape[-1]
    top_k = choices if sampling.top_k is None else sampling.top_k
    if top_k > choices:
        raise ValueError(f"top_k {top_k} is more than the {choices} codes there are")
    if top_k == 1:
        return logits_BV.argmax(dim=-1)
    scores_BK, codes_BK = logits_BV.float(), None
    if top_k < choices:
        scores_BK, codes_BK = scores_BK.topk(top_k, dim=-1)
    probabilities_BK = (scores_BK / sampling.temperature).double().softmax(dim=-1)
    cumulative_BK = probabilities_BK.cumsum(dim=-1)
    # Rounding can leave the last entry below 1, hence the clamp.
    drawn_B1 = torch.searchsorted(cumulative_BK, uniform_B[:, None], right=True)
    drawn_B1 = drawn_B1.clamp_(max=top_k - 1)
    return (drawn_B1 if codes_BK is None else codes_BK.gather(1, drawn_B1)).squeeze(1)
