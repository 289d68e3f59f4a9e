"""Losses of the tokenizer: reconstruction and codebook. Perceptual and GAN terms: see README."""

import torch.nn.functional as F
from torch import Tensor

from models.tokenizer.config import TokenizerConfig


def reconstruction_losses(x_BCTHW: Tensor, y_BCTHW: Tensor) -> dict[str, Tensor]:
    """Return mean absolute ("l1") and mean squared ("l2") error of frames in [-1, 1]."""
    return {"l1": F.l1_loss(y_BCTHW, x_BCTHW), "l2": F.mse_loss(y_BCTHW, x_BCTHW)}


def total_loss(losses: dict[str, Tensor], config: TokenizerConfig) -> Tensor:
    """Return the weighted sum that training minimises.

    Args:
        losses: "l1", "l2" and "commitment", as `VideoTokenizer.forward` gives them.
        config: holds ``l1_weight``, ``l2_weight`` and ``commitment_weight``.
    """
    return (
        config.l1_weight * losses["l1"]
        + config.l2_weight * losses["l2"]
        + config.commitment_weight * losses["commitment"]
    )
