"""Perceptual hash: 64 bits of a picture that scaling and coding it anew barely change.

The DCT hash (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions):
luma is scaled to 32x32 by area, and each of the 8x8 lowest frequencies of its DCT, row by row,
gives one bit, whether it is above their median. In how many bits two hashes differ says how unlike
the pictures are: a few for copies, near 32 for strangers. Other libraries scale otherwise, so their
hashes do not compare with these.

A picture without structure (a black one, a clear sky, a smooth gradient) has no hash: its
frequencies all lie so near their median that coding the picture anew flips half of the bits.
"""

import cv2
import numpy as np

KIND = "dct_32x32_luma_lowest_8x8_above_median_of_middle_sample_unless_flat"
FLAT = 4.0
"""Below this median distance of the frequencies from their median a picture is flat (real film 33
to 90; JPEG at quality 40 flips up to 18 bits below it, and up to 6 above)."""
_SIDE_PX, _LOWEST = 32, 8


def phash(luma_HW: np.ndarray) -> int | None:
    """Return the hash of a uint8 luma image, 0 to 2**64 - 1, first bit highest; None when flat."""
    small = cv2.resize(luma_HW, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOWEST, :_LOWEST]
    above = low - np.median(low)
    if np.median(np.abs(above)) < FLAT:
        return None
    return int.from_bytes(np.packbits(above > 0).tobytes(), "big")


def as_text(value: int) -> str:
    """Return a hash as 16 hex digits."""
    return f"{value:016x}"
