"""Perceptual hash: 64 bits of a picture that scaling and coding it anew barely change.

The DCT hash (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions):
luma is scaled to 32x32 by area, and each of the 8x8 lowest frequencies of its DCT, row by row,
gives one bit, whether it is above their median. In how many bits two hashes differ says how unlike
the pictures are: a few for copies, near 32 for strangers. The hash of a picture without structure
says nothing. Other libraries scale otherwise, so their hashes do not compare with these.
"""

import cv2
import numpy as np

KIND = "dct_32x32_luma_lowest_8x8_above_median_of_middle_sample"
_SIDE_PX, _LOWEST = 32, 8


def phash(luma_HW: np.ndarray) -> int:
    """Return the hash of a uint8 luma image, 0 to 2**64 - 1, first bit highest."""
    small = cv2.resize(luma_HW, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_LOWEST, :_LOWEST]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def as_text(value: int) -> str:
    """Return a hash as 16 hex digits."""
    return f"{value:016x}"
