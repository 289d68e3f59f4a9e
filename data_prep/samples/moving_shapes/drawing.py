"""Frames of moving shapes, anti-aliased: each pixel has the share of it that a shape covers.

The edge is as soft as one pixel: coverage is half a pixel less the signed distance to the outline,
held between 0 and 1. It is arithmetic of NumPy alone, so a frame is the same to the bit every time.
"""

import math

import numpy as np

from data_prep.samples.moving_shapes.scene import EXTENTS, Colour, Placed, Scene, Shape

RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (222, 45, 45),
    "yellow": (236, 212, 40),
    "green": (40, 172, 62),
    "blue": (45, 85, 225),
    "purple": (172, 55, 205),
}


def draw(scene: Scene, time_s: float, width_px: int, height_px: int) -> np.ndarray:
    """Return the frame of a scene `time_s` after it began, uint8 RGB (height_px, width_px, 3)."""
    greys = np.linspace(*scene.greys, height_px, dtype=np.float32)
    frame_HWC = np.broadcast_to(greys[:, None, None], (height_px, width_px, 3)).copy()
    for placed in scene.objects:
        _paint(frame_HWC, placed, time_s)
    return np.rint(frame_HWC).astype(np.uint8)


def _paint(frame_HWC: np.ndarray, placed: Placed, time_s: float) -> None:
    height_px, width_px, _ = frame_HWC.shape
    x, y = placed.path(np.array([time_s]), height_px / width_px)[0] * width_px
    radius_px = placed.radius * width_px
    reach_px = max(EXTENTS[placed.actor.shape]) * radius_px + 1
    left, top = max(0, math.floor(x - reach_px)), max(0, math.floor(y - reach_px))
    right, bottom = math.ceil(x + reach_px) + 1, math.ceil(y + reach_px) + 1
    patch_HWC = frame_HWC[top:bottom, left:right]
    rows, columns = np.mgrid[top : top + len(patch_HWC), left : left + patch_HWC.shape[1]]
    distance_HW = _distance(placed.actor.shape, columns + 0.5 - x, rows + 0.5 - y, radius_px)
    share_HW1 = np.clip(0.5 - distance_HW, 0, 1)[..., None].astype(np.float32)
    patch_HWC += share_HW1 * (np.array(RGB[placed.actor.colour], np.float32) - patch_HWC)


def _distance(shape: Shape, x_HW: np.ndarray, y_HW: np.ndarray, radius_px: float) -> np.ndarray:
    """Return the signed distance to a shape's outline, in pixels, negative inside.

    Outside a corner it is the distance to the nearer side's line, which keeps corners sharp.
    """
    side, above, below = (extent * radius_px for extent in EXTENTS[shape])
    match shape:
        case "circle":
            return np.hypot(x_HW, y_HW) - radius_px
        case "square":
            return np.maximum(abs(x_HW), abs(y_HW)) - side
        case "triangle":
            slant = np.array([above + below, side]) / math.hypot(above + below, side)
            return np.maximum(y_HW - below, abs(x_HW) * slant[0] - (y_HW + above) * slant[1])
