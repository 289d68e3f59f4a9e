"""Text: leave out clips that are covered by it, such as title cards, slides and credits.

The score is the share of the frame that lies within text boxes, the mean of a few frames of the
clip. The boxes come from a model (:mod:`models.perception.text_boxes`), so the score is None until
``ray_jobs.score`` has run.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

SCALE = "mean_share_of_frame_within_pp_ocr_v4_text_boxes_long_side_at_most_640px"


class TextConfig(Section):
    """How much of the frame may be text."""

    max_area: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Clips with more are filtered (a line of subtitles covers about 0.05); 1 keeps all."""


def area(boxes: Iterable[np.ndarray], width_px: int, height_px: int) -> float:
    """Return the share of a frame within any of the boxes, 0 to 1.

    Args:
        boxes: four corners each, (4, 2), x before y, in pixels.
        width_px: of the frame.
        height_px: of the frame.
    """
    covered_HW = np.zeros((height_px, width_px), np.uint8)
    for box in boxes:
        cv2.fillPoly(covered_HW, [np.asarray(box).round().astype(np.int32)], (1,))
    return float(covered_HW.mean())


def score(areas: Sequence[float]) -> float | None:
    """Return the mean of the areas of a clip's frames, 0 to 1, or None when it has none."""
    return sum(areas) / len(areas) if areas else None


FILTER = Filter(
    name="text",
    about="Title cards and slides.",
    thresholds=TextConfig,
    score=Score("text_area", "models", "Text", "share of the frame", 0, 1, scale=SCALE),
    above=Limit("max_area", "text"),
    describe=lambda limits: f"over at most {limits.max_area:g} of the frame",
)
