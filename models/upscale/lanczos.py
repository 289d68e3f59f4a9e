"""Lanczos resampling: no model, no detail that was not there; what the others have to beat."""

import numpy as np
from PIL import Image


class Lanczos:
    """Enlarges by resampling.

    Args:
        scale: at least 1.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale

    def __call__(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Return the frames enlarged; see :class:`models.upscale.Upscaler`."""
        _, height, width, _ = frames_THWC.shape
        size = (width * self._scale, height * self._scale)
        resized = (Image.fromarray(f).resize(size, Image.Resampling.LANCZOS) for f in frames_THWC)
        return np.stack([np.asarray(frame) for frame in resized])
