"""Jump of the colour at a join: its measure, and an optional correction.

Shapes: B video, F frames, H W rows and columns, C = 3 colours. Frames are uint8 RGB; on the two
sides of a join there may be different numbers of them.
"""

import torch
from torch import Tensor

_FLAT = 2.0
"""Standard deviation, of 255, below which a channel has one value and noise."""
_DARK = 16.0
_MOST_SCALE = 2.0


def colour_distance(before_BFHWC: Tensor, after_BFHWC: Tensor) -> Tensor:
    """Euclidean distance of the mean colours, as `models.evaluation.motion` measures it.

    Returns:
        (B,) float64 in [0, 442]; 442 is from black to white.
    """
    return (_statistics(after_BFHWC)[0] - _statistics(before_BFHWC)[0]).norm(dim=-1)


def match_colour(frames_BFHWC: Tensor, tail_BFHWC: Tensor) -> Tensor:
    """Move the colours of a chunk so that it begins with those of the frames before it.

    One shift and one scale a channel for the whole chunk take mean and standard deviation of its
    first frames, as many as the tail has, to those of the tail. What changes within the chunk
    stays; what changes from the tail to those first frames is taken for drift, an intended change
    of light too. Clipping to 0..255 and rounding leave a small difference.

    A scale is at most 2 and at least 1/2, and a channel of nearly one value, on either side, is
    only shifted: its few steps of deviation are noise, and would multiply all that comes later.
    Black and white frames, on either side, have no colour: then the chunk stays as it is.

    Args:
        frames_BFHWC: The chunk.
        tail_BFHWC: The last frames of the video before it.

    Returns:
        The chunk, uint8.
    """
    wanted_mean_BC, wanted_std_BC = _statistics(tail_BFHWC)
    mean_BC, std_BC = _statistics(frames_BFHWC[:, : tail_BFHWC.shape[1]])
    flat_BC = (std_BC < _FLAT) | (wanted_std_BC < _FLAT)
    scale_BC = (wanted_std_BC / std_BC.where(~flat_BC, 1.0)).clamp(1 / _MOST_SCALE, _MOST_SCALE)
    scale_BC = scale_BC.where(~flat_BC, 1.0)
    shift_BC = wanted_mean_BC - mean_BC * scale_BC
    colourless_B1 = _colourless(mean_BC, std_BC) | _colourless(wanted_mean_BC, wanted_std_BC)
    scale_BC = scale_BC.where(~colourless_B1, 1.0)
    shift_BC = shift_BC.where(~colourless_B1, 0.0)
    scale, shift = (x_BC.float()[:, None, None, None] for x_BC in (scale_BC, shift_BC))
    return (frames_BFHWC * scale + shift).round_().clamp_(0, 255).to(torch.uint8)


def _colourless(mean_BC: Tensor, std_BC: Tensor) -> Tensor:
    """Whether frames are black or white, (B, 1)."""
    black_BC, white_BC = mean_BC + std_BC < _DARK, mean_BC - std_BC > 255 - _DARK
    return (black_BC.all(dim=1) | white_BC.all(dim=1))[:, None]


def _statistics(frames_BFHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over frames and places, (B, C) float64."""
    pixels_BNC = frames_BFHWC.flatten(1, 3).double()
    return pixels_BNC.mean(dim=1), pixels_BNC.std(dim=1, correction=0)
