"""Upscalers: frames in, the same frames larger out (Loong, section 3.3, super-resolution).

Each has ``check``, which says in one line what is missing before anything starts, and is built once
and then given a video's frames in order, some at a time.
"""

from typing import Protocol

import numpy as np

from models.upscale import lanczos, realesrgan
from models.upscale.config import LanczosConfig, RealesrganConfig, UpscalerConfig


class Upscaler(Protocol):
    """Enlarges frames, and leaves their number, content and motion as they are."""

    def __call__(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Return uint8 RGB (T, scale H, scale W, 3) of uint8 RGB frames (T, H, W, 3)."""
        ...


def check(config: UpscalerConfig) -> None:
    """Raise UserError when what the upscaler needs is not there."""
    match config:
        case RealesrganConfig():
            realesrgan.check()
        case LanczosConfig():
            pass


def build(config: UpscalerConfig, scale: int, gpu: int | None = None) -> Upscaler:
    """Return an upscaler.

    Args:
        config: which one.
        scale: at least 2; one that it can do, see :func:`models.upscale.config.check_scale`.
        gpu: the number of the GPU to use; None takes the CPU.

    Raises:
        UserError: what it needs is not there.
    """
    match config:
        case RealesrganConfig():
            return realesrgan.Realesrgan(config.model, scale, gpu)
        case LanczosConfig():
            return lanczos.Lanczos(scale)
