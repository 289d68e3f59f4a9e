"""Rotary positions (RoFormer, Su et al. 2021), in the half-split form of LLaMA."""

import torch
from torch import Tensor


def rotary_tables(positions_S: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, in float32.

    Args:
        positions_S: Places in the sequence.
        head_dim: Channels of a head, E.
        theta: Base of the wavelengths.

    Returns:
        Two tensors (S, E/2).
    """
    exponents = torch.arange(0, head_dim, 2, device=positions_S.device, dtype=torch.float32)
    angles = positions_S[:, None].float() * theta ** (-exponents / head_dim)
    return angles.cos(), angles.sin()


def rotate(x_BNSE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair (i, i + E/2) by its angle: the half-split form of RoPE."""
    first, second = x_BNSE.chunk(2, dim=-1)
    cos, sin = cos.to(x_BNSE.dtype), sin.to(x_BNSE.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
