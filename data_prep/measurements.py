"""What is measured on a film's samples, two a second, and what that says of any clip of it.

Everything comes from frames that are decoded anyway; a sample leaves a few numbers behind.
"""

from array import array

import cv2
import numpy as np

from data_prep import phash
from data_prep.filters import (
    aspect,
    black,
    blur,
    brightness,
    duration,
    frame_rate,
    letterbox,
    motion,
    resolution,
)
from data_prep.types import CropBox, Scene, Scores, VideoInfo


class Measurements:
    """Takes the samples of one film in order; all arrays have one entry a sample.

    Args:
        info: of the film.
    """

    def __init__(self, info: VideoInfo) -> None:
        self._info = info
        self._size = (0, 0)
        self._last_luma: np.ndarray | None = None
        self._frames, self._lumas, self._differences = array("q"), array("d"), array("d")
        self._black, self._sharpnesses = array("b"), array("d")
        self._hashes: list[int | None] = []
        self._lit: list[letterbox.Span | None] = []

    def add(self, frame: int, frame_HWC: np.ndarray) -> None:
        """Measure frame number `frame`, uint8 RGB; numbers rise and all frames have one size."""
        luma = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
        last = self._last_luma
        self._size = luma.shape[1], luma.shape[0]
        self._frames.append(frame)
        self._lumas.append(float(luma.mean()))
        self._differences.append(motion.difference(last, luma) if last is not None else 0.0)
        self._black.append(black.is_black(luma))
        self._lit.append(letterbox.lit(luma))
        self._sharpnesses.append(blur.sharpness(luma))
        self._hashes.append(phash.phash(luma))
        self._last_luma = luma

    def of(self, clip: Scene) -> tuple[Scores, CropBox | None, str | None]:
        """Return a clip's scores, the box within its bars and its perceptual hash.

        What needs a sample is None for a clip so short that it holds none, and the hash also when
        the middle sample is flat.
        """
        first, stop = map(int, np.searchsorted(self._frames, [clip.start_frame, clip.end_frame]))
        inside = slice(first, stop)
        box = letterbox.crop_box(self._lit[inside], *self._size)
        scores = Scores(
            duration_s=duration.score(clip),
            short_side_px=resolution.score(self._info),
            aspect_ratio=aspect.score(self._info),
            fps=frame_rate.score(self._info),
            black_share=black.score(self._black[inside]),
            brightness=brightness.score(self._lumas[inside]),
            letterbox_share=letterbox.score(box),
            # The first sample's difference reaches back to before the clip.
            motion=motion.score(self._differences[first + 1 : stop]),
            sharpness=blur.score(self._sharpnesses[inside]),
        )
        middle = self._hashes[(first + stop) // 2] if first < stop else None
        return scores, box, None if middle is None else phash.as_text(middle)
