"""LeCam regularisation of a discriminator (Tseng et al. 2021)."""

import torch.nn.functional as F
from torch import Tensor


def lecam(real: Tensor, fake: Tensor, real_average: Tensor, fake_average: Tensor) -> Tensor:
    """Return the distance of logits to the running means of the other side, a scalar.

    One-sided, as in LeCam's public code: logits beyond the other side's mean do not count. The
    paper's equation 4 has plain squares.

    Args:
        real: logits of real frames, of any shape.
        fake: logits of made frames.
        real_average: running mean of the logits of real frames, a scalar.
        fake_average: the same of made frames.
    """
    above = F.relu(real - fake_average).square().mean()
    return above + F.relu(real_average - fake).square().mean()
