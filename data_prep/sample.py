"""A training sample: one window of a clip with its text and a seed of its own."""

from dataclasses import dataclass

import numpy as np

Shape = tuple[int, int, int]
"""Frames of the clip's window, and rows and columns of what is stored of it: pixels or latents."""


@dataclass(frozen=True)
class Sample:
    """One window of a clip, as a loader gives it and a task reads it.

    The arrays are views of the shard's memory and may not be written to.
    """

    data: np.ndarray
    """Frames (T, H, W, 3) uint8, codes (T, H, W) integers, or latents (C, T, H, W) floats."""
    text: np.ndarray | None
    """The caption's piece ids (N,) or embeddings (N, D), unpadded; None where shards hold none."""
    shape: Shape
    """The same for all samples of a batch."""
    seed: int
    """For what is drawn for this sample: it does not depend on which worker reads it."""
    clip_id: str
    caption: str | None
    fps: float
    start_frame: int
    """Where in the clip the window begins."""
