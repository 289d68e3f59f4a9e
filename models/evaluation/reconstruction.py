"""PSNR of a reconstruction, and what a trivial one would score.

Shape legend: B clip, C channel, T frame, H row, W column; pixels in [-1, 1].
"""

import math

import torch
from torch import Tensor

PEAK = 2.0
"""Distance between black (-1) and white (+1)."""


def psnr_db(x_BCTHW: Tensor, y_BCTHW: Tensor) -> float:
    """Return 10 log10(4 / MSE) over all pixels of a batch, infinite for equal tensors.

    Raises:
        ValueError: the shapes differ.
    """
    return float(_psnr(_squared_error(x_BCTHW, y_BCTHW).mean()))


def psnr_per_frame_db(x_BCTHW: Tensor, y_BCTHW: Tensor) -> list[float]:
    """Return the PSNR of each frame over the batch: T numbers.

    Causal decoders are known to blur their later frames; this is the curve that shows it.

    Raises:
        ValueError: the shapes differ.
    """
    return _psnr(_squared_error(x_BCTHW, y_BCTHW).mean(dim=(0, 1, 3, 4))).tolist()


def constant_colour_psnr_db(x_BCTHW: Tensor) -> float:
    """Return the PSNR of the best solid colour for each clip, its mean colour.

    The floor to beat: a tokenizer that does not train ends at a solid colour, with a loss and a
    PSNR that look respectable on dark or flat film.
    """
    return psnr_db(x_BCTHW, x_BCTHW.mean(dim=(2, 3, 4), keepdim=True).expand_as(x_BCTHW))


def _squared_error(x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape:
        raise ValueError(f"shapes {tuple(x.shape)} and {tuple(y.shape)}: expected two equal ones")
    return (x.double() - y.double()).square()


def _psnr(mean_squared_error: Tensor) -> Tensor:
    return 10 * (math.log10(PEAK**2) - torch.log10(mean_squared_error))
