"""Objects of one frame: connected regions of one colour, with their centre, area and outline."""

from dataclasses import dataclass

import cv2
import numpy as np

from models.evaluation.shapes import colours, outlines

LONG_SIDE_PX = 160
"""Larger frames are made smaller first: it bounds the cost, and takes away the noise of coding."""
CHROMA_MIN = 28.0
"""The least distance from the background in the colour plane, 0-255, that is an object's."""
AREA_MIN = 0.01
"""The least area of an object, as a share of the square of the shorter side."""
DEPTH_MIN = 0.035
"""How far an object's middle is from its outline, in shorter sides; mixed rims are thin."""
_TOUCH = 0.025


@dataclass(frozen=True)
class Seen:
    """An object in one frame."""

    place: int
    """Of the colour nearest in hue, in ``colours.COLOURS``."""
    x: float
    """Widths; centre of mass."""
    y: float
    """Widths, downwards."""
    area: float
    """Square widths."""
    point: np.ndarray
    """Mean of the colour plane within it, less the background's, (2,)."""
    touching: bool
    """Whether another object is so near that either may hide a part of the other."""
    outline_HW: np.ndarray


def find(frame_HWC: np.ndarray) -> list[Seen]:
    """Return the coloured objects of a uint8 RGB frame, the largest first.

    The background is the frame's median colour; what is as grey as that is not seen. A part
    of an object that is smaller than a hundredth of the picture counts as hidden.
    """
    rgb_HWC = _smaller(frame_HWC)
    height, width, _ = rgb_HWC.shape
    short = min(height, width)
    plane_HWD = colours.plane(cv2.GaussianBlur(rgb_HWC, (0, 0), 0.8))
    plane_HWD -= np.median(plane_HWD, axis=(0, 1))
    coloured_HW = np.hypot(plane_HWD[..., 0], plane_HWD[..., 1]) > CHROMA_MIN
    place_HW = np.where(coloured_HW, colours.nearest(plane_HWD), -1)
    regions = [
        (place, region_HW)
        for place in range(len(colours.COLOURS))
        for region_HW in _regions(place_HW == place, AREA_MIN * short**2, DEPTH_MIN * short)
    ]
    seen = []
    reach = 2 * max(1, round(_TOUCH * short)) + 1
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    for number, (place, region_HW) in enumerate(regions):
        near_HW = cv2.dilate(region_HW.astype(np.uint8), around).astype(bool)
        others = [other for k, (_, other) in enumerate(regions) if k != number]
        touching = any((near_HW & other).any() for other in others)
        cover_HW = _cover(rgb_HWC, region_HW, region_HW | near_HW & ~coloured_HW)
        area_px = float(cover_HW.sum())
        if area_px < AREA_MIN * short**2 / 2:  # no brighter inside than beside: nothing but noise
            continue
        x_px = float(cover_HW.sum(0) @ np.arange(width)) / area_px
        y_px = float(cover_HW.sum(1) @ np.arange(height)) / area_px
        form_HW = outlines.outline(cover_HW, x_px, y_px, area_px)
        point = plane_HWD[region_HW].mean(0)
        x, y = (x_px + 0.5) / width, (y_px + 0.5) / width
        seen.append(Seen(place, x, y, area_px / width**2, point, touching, form_HW))
    return sorted(seen, key=lambda one: -one.area)


def _smaller(frame_HWC: np.ndarray) -> np.ndarray:
    height, width, _ = frame_HWC.shape
    scale = LONG_SIDE_PX / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame_HWC = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
    return frame_HWC.astype(np.float32)


def _regions(mask_HW: np.ndarray, least_px: float, depth_px: float) -> list[np.ndarray]:
    """Return the connected parts of a mask that are large and thick enough."""
    if np.count_nonzero(mask_HW) < least_px:
        return []
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8))
    parts = [labels_HW == k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= least_px]
    padded = [np.pad(part, 1).astype(np.uint8) for part in parts]
    depths = [float(cv2.distanceTransform(part, cv2.DIST_L2, 5).max()) for part in padded]
    return [part for part, depth in zip(parts, depths, strict=True) if depth >= depth_px]


def _cover(rgb_HWC: np.ndarray, region_HW: np.ndarray, own_HW: np.ndarray) -> np.ndarray:
    """Return the share of each pixel that an object covers, 0-1, from all three channels.

    It is how far the pixel is on the way from the background beside the object to its inside.
    """
    beside_HW = own_HW & ~region_HW
    if not beside_HW.any():
        return region_HW.astype(np.float32)
    inner_HW = cv2.erode(region_HW.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    inside = np.median(rgb_HWC[inner_HW if inner_HW.any() else region_HW], axis=0)
    outside = np.median(rgb_HWC[beside_HW], axis=0)
    way = inside - outside
    length = max(float(way @ way), 1.0)
    cover_HW = np.clip((rgb_HWC - outside) @ way / length, 0, 1)
    return np.where(own_HW, cover_HW, 0).astype(np.float32)
