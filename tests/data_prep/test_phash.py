"""Perceptual hash: copies stay near, other shots are far."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from data_prep import phash as module
from data_prep.phash import as_text

NEAR, FAR = 4, 20


def phash(luma_HW: np.ndarray) -> int:
    value = module.phash(luma_HW)
    assert value is not None
    return value


def _luma(frame_HWC: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)


def _distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def _jpeg(luma_HW: np.ndarray) -> np.ndarray:
    data = cv2.imencode(".jpg", luma_HW, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image


COPIES = {
    "coded": _jpeg,
    "halved": lambda luma: cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "enlarged": lambda luma: cv2.resize(luma, None, fx=1.7, fy=1.7),
    "stretched": lambda luma: cv2.resize(luma, (luma.shape[1], luma.shape[0] * 3 // 2)),
    "darkened": lambda luma: cv2.convertScaleAbs(luma, alpha=0.7),
    "blurred": lambda luma: cv2.GaussianBlur(luma, (0, 0), 1.5),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_moves_few_bits(pictures, how: str) -> None:
    for frames in pictures.values():
        for frame in frames[::24]:
            luma = _luma(frame)
            assert _distance(phash(luma), phash(COPIES[how](luma))) <= NEAR


def test_other_shots_and_mirror_images_differ_in_many_bits(pictures) -> None:
    firsts = [phash(_luma(frames[0])) for frames in pictures.values()]
    assert min(_distance(a, b) for a, b in combinations(firsts, 2)) >= FAR
    for frames in pictures.values():
        luma = _luma(frames[0])
        assert _distance(phash(luma), phash(np.ascontiguousarray(luma[:, ::-1]))) >= FAR


def test_it_is_64_bits_in_16_digits(pictures) -> None:
    values = [phash(_luma(frame)) for frame in pictures["bikes"][::24]]
    assert all(0 <= value < 1 << 64 for value in values)
    assert {value.bit_count() for value in values} == {32}  # half are above the median
    assert all(int(as_text(value), 16) == value for value in values)
    assert as_text(5) == "0000000000000005"


def test_pictures_without_structure_have_no_hash(pictures) -> None:
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(20, 200, 256), (144, 1)).astype(np.uint8)
    grey = np.full((144, 256), 80, np.uint8)
    noisy = np.clip(rng.normal(80, 4, grey.shape), 0, 255).astype(np.uint8)
    for flat in (grey, noisy, ramp):
        assert module.phash(flat) is None
    for frames in pictures.values():
        for frame in frames[::24]:
            assert module.phash((_luma(frame) * 0.3).astype(np.uint8)) is not None
            assert module.phash((60 + _luma(frame) * 0.02).astype(np.uint8)) is None
