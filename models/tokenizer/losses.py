"""Losses of the tokenizer: reconstruction, and the weighted sum of all terms."""

import torch.nn.functional as F
from torch import Tensor

from models.tokenizer.config import TokenizerConfig


def reconstruction_losses(x_BCTHW: Tensor, y_BCTHW: Tensor) -> dict[str, Tensor]:
    """Return mean absolute ("l1") and mean squared ("l2") error of frames in [-1, 1]."""
    return {"l1": F.l1_loss(y_BCTHW, x_BCTHW), "l2": F.mse_loss(y_BCTHW, x_BCTHW)}


def total_loss(losses: dict[str, Tensor], config: TokenizerConfig) -> Tensor:
    """Return the weighted sum that training minimises.

    Args:
        losses: "l1", "l2" and "commitment", and what `TrainingTokenizer.forward` adds.
        config: holds a weight for each; that of "discriminator" is 1.
    """
    weights = {
        "l1": config.l1_weight,
        "l2": config.l2_weight,
        "commitment": config.commitment_weight,
        "perceptual": config.perceptual.weight,
    }
    if config.adversarial is not None:
        weights["adversarial"] = config.adversarial.weight
        weights["discriminator"] = 1.0
        weights["lecam"] = config.adversarial.lecam_weight
    parts = [weights[name] * loss for name, loss in losses.items()]
    return sum(parts[1:], start=parts[0])
