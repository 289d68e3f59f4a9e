"""Measurements on a film's samples, two a second, and the scores of any clip of it.

Everything comes from frames that are decoded anyway; a sample leaves a few numbers behind.
"""

from array import array
from typing import Any

import cv2
import numpy as np

from data_prep import phash
from data_prep.filters import SCORED, letterbox
from data_prep.filters.record import Measured, Sample
from data_prep.types import CropBox, Scene, Scores, VideoInfo


class Measurements:
    """Takes the samples of one film in order; all lists have one entry a sample.

    Args:
        info: of the film.
    """

    def __init__(self, info: VideoInfo) -> None:
        self._info = info
        self._size = (0, 0)
        self._last_luma: np.ndarray | None = None
        self._frames = array("q")
        self._hashes: list[int | None] = []
        self._taken: dict[str, list[Any]] = {each.name: [] for each in SCORED if each.sample}

    def add(self, frame: int, frame_HWC: np.ndarray) -> None:
        """Measure frame number `frame`, uint8 RGB; numbers rise and all frames have one size."""
        luma = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
        self._size = luma.shape[1], luma.shape[0]
        self._frames.append(frame)
        self._hashes.append(phash.phash(luma))
        sample = Sample(frame_HWC, luma, self._last_luma)
        for each in SCORED:
            if each.sample is not None:
                self._taken[each.name].append(each.sample(sample))
        self._last_luma = luma

    def of(self, clip: Scene) -> tuple[Scores, CropBox | None, str | None]:
        """Return a clip's scores, the box within its bars and its perceptual hash.

        What needs a sample is None for a clip so short that it holds none, and the hash also when
        the middle sample is flat.
        """
        first, stop = map(int, np.searchsorted(self._frames, [clip.start_frame, clip.end_frame]))
        taken = {name: values[first:stop] for name, values in self._taken.items()}
        scores = {
            each.score.name: None
            if each.measure is None
            else each.measure(Measured(self._info, clip, taken.get(each.name, ()), self._size))
            for each in SCORED
        }
        box = letterbox.crop_box(taken[letterbox.FILTER.name], *self._size)
        middle = self._hashes[(first + stop) // 2] if first < stop else None
        return scores, box, None if middle is None else phash.as_text(middle)
