"""Jump of the colour at a join: its measure, and an optional correction.

Shapes: B video, F frames, H W rows and columns, C = 3 colours. Frames are uint8 RGB; on the two
sides of a join there may be different numbers of them.
"""

import torch
from torch import Tensor


def colour_distance(before_BFHWC: Tensor, after_BFHWC: Tensor) -> Tensor:
    """Euclidean distance of the mean colours, as `models.evaluation.motion` measures it.

    Returns:
        (B,) float64 in [0, 442]; 442 is from black to white.
    """
    return (_statistics(after_BFHWC)[0] - _statistics(before_BFHWC)[0]).norm(dim=-1)


def match_colour(frames_BFHWC: Tensor, tail_BFHWC: Tensor) -> Tensor:
    """Move the colours of a chunk so that it begins with those of the frames before it.

    One shift and one scale a channel for the whole chunk take mean and standard deviation of its
    first frames, as many as the tail has, to those of the tail. A channel of one value, on either
    side, is only shifted. What changes within the chunk stays; what changes from the tail to those
    first frames is taken for drift, an intended change of light too. Clipping to 0..255 and
    rounding leave a small difference.

    Args:
        frames_BFHWC: The chunk.
        tail_BFHWC: The last frames of the video before it.

    Returns:
        The chunk, uint8.
    """
    wanted_mean_BC, wanted_std_BC = _statistics(tail_BFHWC)
    mean_BC, std_BC = _statistics(frames_BFHWC[:, : tail_BFHWC.shape[1]])
    flat = (std_BC == 0) | (wanted_std_BC == 0)
    scale_BC = torch.where(flat, 1.0, wanted_std_BC / std_BC.where(~flat, 1.0))
    shift_BC = wanted_mean_BC - mean_BC * scale_BC
    scale, shift = (x_BC.float()[:, None, None, None] for x_BC in (scale_BC, shift_BC))
    return (frames_BFHWC * scale + shift).round_().clamp_(0, 255).to(torch.uint8)


def _statistics(frames_BFHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over frames and places, (B, C) float64."""
    pixels_BNC = frames_BFHWC.flatten(1, 3).double()
    return pixels_BNC.mean(dim=1), pixels_BNC.std(dim=1, correction=0)
