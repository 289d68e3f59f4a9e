"""Thumbnails: small, from the middle, and bounded in number."""

import cv2
import numpy as np

from data_prep import thumbnails
from data_prep.thumbnails import Candidates, jpeg


def _grey(value: int) -> np.ndarray:
    return np.full((144, 256, 3), value, np.uint8)


def _value(data: bytes | None) -> int:
    assert data is not None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return round(float(image.mean()))


def test_size_and_colour_order() -> None:
    red = np.zeros((144, 256, 3), np.uint8)
    red[..., 0] = 250
    image = cv2.imdecode(np.frombuffer(jpeg(red), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (108, 192, 3)
    assert image[..., 2].mean() > 200 > 20 > image[..., 0].mean()  # OpenCV reads blue first
    small = cv2.imdecode(np.frombuffer(jpeg(red[:90, :100]), np.uint8), cv2.IMREAD_COLOR)
    assert small is not None
    assert small.shape == (90, 100, 3)


def test_the_middle_of_each_clip_and_never_another_shot() -> None:
    candidates = Candidates()
    for frame in range(0, 100, 10):
        candidates.add(frame, _grey(frame))
    assert abs(_value(candidates.middle(0, 41)) - 20) <= 2
    assert abs(_value(candidates.middle(41, 100)) - 70) <= 2
    assert candidates.middle(41, 49) is None
    candidates.forget_before(50)
    assert candidates.middle(0, 50) is None
    assert abs(_value(candidates.middle(0, 100)) - 50) <= 2


def test_candidates_stay_bounded_and_spread(monkeypatch) -> None:
    monkeypatch.setattr(thumbnails, "CANDIDATES_MAX", 16)
    candidates = Candidates(16)
    for frame in range(500):
        candidates.add(frame, _grey(frame // 2))
        assert len(candidates._kept) <= 16
    assert abs(_value(candidates.middle(0, 500)) - 125) <= 20
