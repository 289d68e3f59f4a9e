"""Motion and drift of a video over time, from its pixels alone.

Shape legend: T frame, H row, W column, C = 3 RGB channels; uint8. The curves are in the pixel
units 0-255, so a number compares only with one of the same resolution and frame rate.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Rec. 601 weights of red, green and blue."""


@dataclass(frozen=True)
class WindowCurves:
    """One number a window for each measure."""

    start_s: list[float]
    motion: list[float]
    """Mean absolute difference to the frame before, 0-255. A window counts the step into its
    first frame, so a jump at a border is in the window that it opens."""
    brightness: list[float]
    """Mean luma, 0-255."""
    sharpness: list[float]
    """Variance of the Laplacian of luma, mean over frames; falls as a video blurs."""
    colour_distance: list[float]
    """Euclidean distance of the mean RGB colour to that of the first window, 0-442."""
    frame_correlation: list[float]
    """Mean correlation of the luma of consecutive frames, -1 to 1: 1 of a still, about 0.9 of film,
    0 of noise and of frames without any detail. Steps belong to windows as those of `motion`."""


def motion_energy(frames_THWC: Frames) -> float:
    """Return the mean absolute difference of consecutive frames, 0-255; a still video gives 0.

    Raises:
        ValueError: the frames are not uint8 THW3, or fewer than 2.
    """
    _check(frames_THWC, least=2)
    return float(np.mean(_steps(frames_THWC)))


def per_window(frames_THWC: Frames, fps: float, window_s: float = 2.0) -> WindowCurves:
    """Measure a video window by window; the last window may be shorter.

    Args:
        frames_THWC: the video.
        fps: frames per second, above 0.
        window_s: length of a window in seconds, rounded to whole frames.

    Raises:
        ValueError: the frames are not uint8 THW3, there are none, or a number is not positive.
    """
    _check(frames_THWC, least=1)
    if not (fps > 0 and window_s > 0):
        raise ValueError(f"fps={fps}, window_s={window_s}: both must be above 0")
    length = max(1, round(fps * window_s))
    starts = range(0, len(frames_THWC), length)
    steps, correlations = _steps(frames_THWC), _correlations(frames_THWC)
    motion, brightness, sharpness, colours, correlation = [], [], [], [], []
    for start in starts:
        window = frames_THWC[start : start + length]
        into = slice(max(start - 1, 0), start + len(window) - 1)
        motion.append(float(np.mean(steps[into])) if steps[into] else 0.0)
        correlation.append(float(np.mean(correlations[into])) if steps[into] else 1.0)
        luma = [frame @ LUMA for frame in window]
        brightness.append(float(np.mean([frame.mean() for frame in luma])))
        sharpness.append(float(np.mean([_laplacian_variance(frame) for frame in luma])))
        colours.append(window.mean(axis=(0, 1, 2), dtype=np.float64))
    return WindowCurves(
        start_s=[start / fps for start in starts],
        motion=motion,
        brightness=brightness,
        sharpness=sharpness,
        colour_distance=[float(np.linalg.norm(colour - colours[0])) for colour in colours],
        frame_correlation=correlation,
    )


def _steps(frames: Frames) -> list[float]:
    """Return the mean absolute difference of each pair of neighbours, T - 1 numbers."""
    return [
        float(np.abs(after.astype(np.int16) - before).mean()) for before, after in pairwise(frames)
    ]


def _correlations(frames: Frames) -> list[float]:
    """Return the correlation of luma of each pair of neighbours, T - 1 numbers.

    A unit of variance is added, so that the grain of a flat frame does not count as its contents.
    """
    centred = (luma - luma.mean() for luma in (frame @ LUMA for frame in frames))
    return [
        float((before * after).mean() / (before.std() * after.std() + 1.0))
        for before, after in pairwise(centred)
    ]


def _laplacian_variance(luma_HW: NDArray[np.float32]) -> float:
    centre = luma_HW[1:-1, 1:-1]
    around = luma_HW[:-2, 1:-1] + luma_HW[2:, 1:-1] + luma_HW[1:-1, :-2] + luma_HW[1:-1, 2:]
    return float(np.var(around - 4 * centre))


def _check(frames: Frames, least: int) -> None:
    shape = frames.shape
    if frames.dtype != np.uint8 or frames.ndim != 4 or shape[-1] != 3:
        raise ValueError(
            f"frames of shape {shape}, type {frames.dtype}: expected uint8 (T, H, W, 3)"
        )
    if shape[0] < least or min(shape[1:3]) < 3:
        raise ValueError(f"frames of shape {shape}: expected at least {least} frame(s) of 3 x 3 px")
