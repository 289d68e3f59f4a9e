"""Shots: PySceneDetect's adaptive detector, fed one frame at a time."""

from typing import Annotated

import cv2
import numpy as np
from pydantic import Field
from scenedetect import AdaptiveDetector, FrameTimecode

from infra.config import Section


class ScenesConfig(Section):
    """When a change between frames is a cut; the defaults are PySceneDetect's own."""

    ratio: Annotated[float, Field(gt=0)] = 3.0
    """How many times a frame's change must exceed that of its neighbours."""
    window_frames: Annotated[int, Field(ge=1)] = 2
    """Neighbours on each side."""
    min_content: Annotated[float, Field(ge=0)] = 15.0
    """The least change (HSV, 0 to 255) that can be a cut."""
    min_scene_frames: Annotated[int, Field(ge=1)] = 15
    """The least distance between two cuts."""


class CutFinder:
    """Finds cuts in a stream of frames; a cut becomes known ``window_frames`` later.

    Args:
        fps: frames per second of the film, above 0.
        config: the detector's settings.
    """

    def __init__(self, fps: float, config: ScenesConfig) -> None:
        if not fps > 0:
            raise ValueError(f"fps {fps}: allowed is above 0")
        self._fps = fps
        self._frame = 0
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.ratio,
            min_scene_len=config.min_scene_frames,
            window_width=config.window_frames,
            min_content_val=config.min_content,
        )

    def push(self, frame_HWC: np.ndarray) -> list[int]:
        """Take the next uint8 RGB frame; return the frames now found to begin a shot."""
        bgr = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
        cuts = self._detector.process_frame(FrameTimecode(self._frame, self._fps), bgr)
        self._frame += 1
        return [cut.frame_num for cut in cuts]
