"""Thumbnails: small JPEGs of a clip's middle frame, chosen while the film streams past."""

import cv2
import numpy as np

CANDIDATES_MAX = 2048
"""Past this many (17 minutes of one shot at 2 a second) every other candidate is let go."""


def jpeg(frame_HWC: np.ndarray, width_px: int = 192, quality: int = 85) -> bytes:
    """Return a uint8 RGB frame as JPEG, at most `width_px` wide, its shape kept."""
    height, width, _ = frame_HWC.shape
    if width > width_px:
        size = (width_px, max(1, round(height * width_px / width)))
        frame_HWC = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes any uint8 image as JPEG"
    return data.tobytes()


def evenly(count: int, at_most: int) -> list[int]:
    """Positions of at most `at_most` of `count` things, evenly spaced, first and last included."""
    if count <= at_most:
        return list(range(count))
    return sorted({round(p) for p in np.linspace(0, count - 1, at_most)})


class Candidates:
    """Frames of the current shot that may become a clip's thumbnail; bounded in number."""

    def __init__(self, width_px: int = 192) -> None:
        self._width_px = width_px
        self._kept: list[tuple[int, bytes]] = []
        self._stride = 1
        self._seen = 0

    def add(self, frame: int, frame_HWC: np.ndarray) -> None:
        """Consider frame number `frame`; numbers rise."""
        if self._seen % self._stride == 0:
            self._kept.append((frame, jpeg(frame_HWC, self._width_px)))
        self._seen += 1
        if len(self._kept) > CANDIDATES_MAX:
            self._kept = self._kept[::2]
            self._stride *= 2

    def middle(self, start_frame: int, end_frame: int) -> bytes | None:
        """Return the JPEG nearest to the middle of a clip, or None when none lies within it."""
        centre = (start_frame + end_frame - 1) / 2
        inside = [c for c in self._kept if start_frame <= c[0] < end_frame]
        return min(inside, key=lambda c: abs(c[0] - centre))[1] if inside else None

    def forget_before(self, frame: int) -> None:
        """Let go of the candidates before `frame`: their shot is done."""
        self._kept = [c for c in self._kept if c[0] >= frame]
        self._stride, self._seen = 1, 0
