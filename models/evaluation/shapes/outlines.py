"""Shapes from averaged outlines: which of circle, square and triangle fits best.

An outline is the share of each pixel that an object covers, moved and scaled so that all objects
have one centre and one area. The mean over frames shows more than any frame: objects lie
differently on the pixel grid each time, and noise of coding averages out.
"""

import math
from functools import cache
from typing import get_args

import cv2
import numpy as np

from models.evaluation.shapes.prompts import Shape

SIDE_PX = 32
ROOT_AREA_PX = 14.0
"""Side of the square that has the area of an outline."""
MARGIN_MIN = 0.3
"""A shape is named if the next one fits worse by more than this share."""
MISFIT_MAX = 0.12
"""Mean squared difference, as a share of the outline's, above which nothing fits."""
_SHAPES: tuple[Shape, ...] = get_args(Shape)
_BLURS = (0.03, 0.08, 0.13, 0.18, 0.24)
"""Softness of edges that may be met, as a share of the root of the area."""
_FINE = 8


def outline(cover_HW: np.ndarray, x_px: float, y_px: float, area_px: float) -> np.ndarray:
    """Return an object's cover with its centre in the middle and of the standard area.

    Args:
        cover_HW: float32, 0-1.
        x_px: centre of mass, where a pixel's middle is a whole number.
        y_px: likewise.
        area_px: the sum of the cover, above 0.
    """
    scale = ROOT_AREA_PX / math.sqrt(area_px)
    middle = (SIDE_PX - 1) / 2
    move = np.array([[scale, 0, middle - scale * x_px], [0, scale, middle - scale * y_px]])
    return cv2.warpAffine(cover_HW, move, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR)


def misfits(mean_HW: np.ndarray) -> dict[Shape, float]:
    """Return how far each shape is from a mean outline, as a share of the outline's power."""
    power = float(np.square(mean_HW).sum()) or 1.0
    return {
        shape: min(float(np.square(mean_HW - form).sum()) / power for form in _forms()[shape])
        for shape in _SHAPES
    }


def named(found: dict[Shape, float]) -> Shape | None:
    """Return the shape that fits, or None when none does or two do about equally."""
    (best, least), (_, second), *_ = sorted(found.items(), key=lambda item: item[1])
    return best if least < MISFIT_MAX and second - least > MARGIN_MIN * second else None


@cache
def _forms() -> dict[Shape, list[np.ndarray]]:
    """Return each shape's outline at every softness, by drawing it finely and shrinking it."""
    fine = SIDE_PX * _FINE
    y, x = np.mgrid[:fine, :fine] - (fine - 1) / 2
    root = ROOT_AREA_PX * _FINE
    side = 2 * root / 3**0.25  # of the equilateral triangle; its centre is at a third of its height
    low, high = side / math.sqrt(12), side / math.sqrt(3)
    inside: dict[Shape, np.ndarray] = {
        "circle": np.hypot(x, y) < root / math.sqrt(math.pi),
        "square": np.maximum(abs(x), abs(y)) < root / 2,
        "triangle": (y < low) & (abs(x) * (low + high) < (y + high) * side / 2),
    }
    forms = {}
    for shape, whole in inside.items():
        blurred = [
            cv2.GaussianBlur(whole.astype(np.float32), (0, 0), blur * root) for blur in _BLURS
        ]
        size = (SIDE_PX, SIDE_PX)
        forms[shape] = [cv2.resize(form, size, interpolation=cv2.INTER_AREA) for form in blurred]
    return forms
