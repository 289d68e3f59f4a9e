"""Colour as a plane: the part of RGB that grey leaves out, where mixing is a straight line.

Red, green and blue are 120 degrees apart in it. A pixel that an object covers by half, a blurred
edge and subsampled chroma all have the object's hue, and the share that it covers is their
distance from the background. So hue names an object, and distance outlines it, at any quality.
"""

import math
from typing import get_args

import numpy as np

from models.evaluation.shapes.prompts import Colour

HUES_DEG: dict[Colour, float] = {
    "red": 0.0,
    "yellow": 54.0,
    "green": 128.0,
    "blue": 226.0,
    "purple": 287.0,
}
TOLERANCE_DEG = 25.0
"""A hue nearer to a colour's than this has its name; yellow and red, the nearest, are 54 apart."""
COLOURS: tuple[Colour, ...] = get_args(Colour)


def plane(rgb: np.ndarray) -> np.ndarray:
    """Return the two coordinates beside grey, float32 (..., 2), of RGB of 0-255 (..., 3)."""
    r, g, b = (rgb[..., channel].astype(np.float32) for channel in range(3))
    return np.stack([r - (g + b) / 2, math.sqrt(0.75) * (g - b)], axis=-1)


def nearest(points: np.ndarray) -> np.ndarray:
    """Return the place in ``COLOURS`` of the hue nearest to each point of the plane (..., 2)."""
    hues = np.radians([HUES_DEG[colour] for colour in COLOURS])
    along = points @ np.stack([np.cos(hues), np.sin(hues)]).astype(np.float32)
    return along.argmax(axis=-1)


def hue_deg(point: np.ndarray) -> float:
    """Return the angle of a point of the plane, 0 to 360."""
    return math.degrees(math.atan2(float(point[1]), float(point[0]))) % 360


def distance_deg(hue: float, colour: Colour) -> float:
    """Return how far a hue is from a colour's, 0 to 180 degrees."""
    return abs((hue - HUES_DEG[colour] + 180) % 360 - 180)
