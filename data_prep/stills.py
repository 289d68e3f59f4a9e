"""Stills: a few frames of a clip for the models that look at single pictures."""

import numpy as np

from data_prep.decode import Decoder, fit
from data_prep.decode_process import DecodeError


def stills(
    decoder: Decoder, start_s: float, end_s: float, count: int, long_side_px: int
) -> np.ndarray:
    """Return frames from the middles of `count` equal parts of a clip, uint8 (count, H, W, 3).

    Of an image it is the one frame, whatever `count`.

    Each is sought by itself, so the cost does not grow with the clip's length.

    Args:
        decoder: of the clip's video.
        start_s: of the clip.
        end_s: of the clip; no frame from there on is taken.
        count: at least 1.
        long_side_px: frames are scaled down to at most this.

    Raises:
        DecodeError: a frame cannot be read.
    """
    info = decoder.probe()
    width, height = fit(info.width_px, info.height_px, long_side_px)
    if info.media == "image":
        return decoder.span(0.0, 0.0, 1.0, width, height)
    frames = []
    for number in range(count):
        at_s = start_s + (number + 0.5) * (end_s - start_s) / count
        try:
            frame_1HWC = decoder.span(at_s, end_s, 1 / (end_s - at_s), width, height)
        except DecodeError:  # the clip's last frame may have begun before: then its first one
            frame_1HWC = decoder.span(start_s, end_s, 1 / (end_s - start_s), width, height)
        frames.append(frame_1HWC[:1])
    return np.concatenate(frames)
