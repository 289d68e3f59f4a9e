"""Stitching: joins shots that were cut in error, such as where a flash passes over one picture.

A cut is taken back when the pictures a little before and a little after it are near-equal by their
perceptual hash (Panda-70M, Chen et al. 2024, section 3.1, compares image features likewise).
Looking a few frames away passes over the flash itself. Pictures without structure have no hash, so
two black ones join nothing.
"""

from collections import deque
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from data_prep.phash import phash
from infra.config import Section


class StitchConfig(Section):
    """When the two sides of a cut are the same shot."""

    max_bits: Annotated[int, Field(ge=0, le=64)] = 8
    """In how many of 64 bits the two pictures may differ; strangers differ in about 32."""
    around_frames: Annotated[int, Field(ge=0, le=50)] = 4
    """How far before and after the cut the pictures are taken, but never past another cut."""


class Stitcher:
    """Takes frames and the cuts found in them, and gives back the cuts that stand.

    Args:
        config: when to join.
        lag_frames: how many frames after a cut it may become known.
    """

    def __init__(self, config: StitchConfig, lag_frames: int) -> None:
        self._config = config
        self._wait = config.around_frames + lag_frames
        # The frames are parts of chunks that are there anyway; only at cuts are they looked at.
        self._recent: deque[np.ndarray] = deque(maxlen=self._wait + config.around_frames + 2)
        self._seen = 0
        self._shot_begins = 0
        self._pending: deque[int] = deque()

    def push(self, frame_HWC: np.ndarray, cuts: list[int]) -> list[int]:
        """Take the next uint8 RGB frame and the cuts now known; return those that stand."""
        self._recent.append(frame_HWC)
        self._seen += 1
        self._pending.extend(cuts)
        return self._decide(self._seen - 1 - self._wait)

    def finish(self, cuts: list[int]) -> list[int]:
        """Take the film's last cuts; return those of the undecided ones that stand."""
        self._pending.extend(cuts)
        return self._decide(self._seen)

    def _decide(self, until_frame: int) -> list[int]:
        standing = []
        while self._pending and self._pending[0] <= until_frame:
            cut = self._pending.popleft()
            shot_ends = self._pending[0] if self._pending else self._seen
            before = self._hash(max(self._shot_begins, cut - 1 - self._config.around_frames))
            after = self._hash(min(shot_ends - 1, cut + self._config.around_frames))
            if before is None or after is None:
                joined = False
            else:
                joined = (before ^ after).bit_count() <= self._config.max_bits
            if not joined:
                standing.append(cut)
            self._shot_begins = cut
        return standing

    def _hash(self, frame: int) -> int | None:
        picture_HWC = self._recent[frame - self._seen]
        return phash(cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2GRAY))
