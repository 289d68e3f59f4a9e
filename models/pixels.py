"""Conversion between uint8 frames and the floats in [-1, 1] that models see."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor


def to_pixels(frames_FHWC: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return (…, 3, F, H, W) in [-1, 1] of uint8 frames (…, F, H, W, 3)."""
    if isinstance(frames_FHWC, np.ndarray):
        frames_FHWC = torch.from_numpy(np.ascontiguousarray(frames_FHWC))
    x_CFHW = rearrange(frames_FHWC.to(device), "... f h w c -> ... c f h w")
    return x_CFHW.float() / 127.5 - 1


def to_frames(x_CFHW: Tensor) -> np.ndarray:
    """Return uint8 frames (…, F, H, W, 3) of pixels (…, 3, F, H, W); clamped to [-1, 1]."""
    x_FHWC = rearrange(x_CFHW, "... c f h w -> ... f h w c")
    return ((x_FHWC.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
