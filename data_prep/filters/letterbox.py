"""Letterbox: find black bars at the edges, and leave out clips that are mostly bars.

Bars are what lies outside the smallest upright box that holds every lit pixel of every sample of
a clip. So they are constant over the clip, and cutting them away cuts away nothing that was seen;
a subtitle or a logo in a bar shrinks the bar. A picture that is black up to its edge throughout a
clip (a night sky, white letters on black) cannot be told from bars.
"""

from collections.abc import Iterable
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from data_prep.types import CropBox
from infra.config import Section

LUMA = 20
"""A pixel above this (of 255) is lit; bars that were coded with loss stay below."""
SCALE = f"share_of_frame_outside_the_box_of_pixels_above_luma_{LUMA}_long_side_256px"

Span = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the analysed frame; right and bottom are exclusive."""


class LetterboxConfig(Section):
    """How much of the frame may be bars."""

    max_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Clips with bars over a larger share are filtered; 1 keeps all: bars can be cropped away."""


def lit(luma_HW: np.ndarray) -> Span | None:
    """Return the box of the lit pixels of a uint8 luma image, or None when there are none."""
    mask_HW = cv2.threshold(luma_HW, LUMA, 255, cv2.THRESH_BINARY)[1]
    left, top, width, height = cv2.boundingRect(mask_HW)
    return (left, top, left + width, top + height) if width else None


def crop_box(spans: Iterable[Span | None], width_px: int, height_px: int) -> CropBox | None:
    """Return the box around the lit pixels of all samples, or None when no sample has any.

    Args:
        spans: what :func:`lit` found in each sample.
        width_px: of the analysed frame.
        height_px: of the analysed frame.
    """
    found = [span for span in spans if span is not None]
    if not found:
        return None
    lefts, tops, rights, bottoms = zip(*found, strict=True)
    left, top = min(lefts), min(tops)
    return CropBox(
        x=left / width_px,
        y=top / height_px,
        width=(max(rights) - left) / width_px,
        height=(max(bottoms) - top) / height_px,
    )


def score(box: CropBox | None) -> float | None:
    """Return the share of the frame that bars cover, 0 to 1, or None when nothing was lit."""
    return None if box is None else 1.0 - box.width * box.height


FILTER = Filter(
    name="letterbox",
    about="Black bars.",
    thresholds=LetterboxConfig,
    score=Score(
        "letterbox_share", "samples", "Black bars", "share of the frame", 0, 1, scale=SCALE
    ),
    above=Limit("max_share", "letterbox"),
    describe=lambda limits: f"bars over at most {limits.max_share:g} of the frame",
    sample=lambda sample: lit(sample.luma_HW),
    measure=lambda measured: score(crop_box(measured.samples, *measured.size)),
)
