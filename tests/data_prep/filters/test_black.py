"""Black: a fade is told from darkness."""

import cv2
import numpy as np
import pytest

from data_prep.filters import black, brightness
from data_prep.filters.brightness import BrightnessConfig


def _lumas(frames_THWC: np.ndarray) -> list[np.ndarray]:
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC[::12]]


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_pristine"])
def test_a_fade_is_black_in_part_and_a_night_is_dark_but_not_black(pictures, name: str) -> None:
    day = _lumas(pictures[name])
    assert black.score([black.is_black(luma) for luma in day]) == 0
    assert black.score([black.is_black(luma // 20) for luma in day]) == 1
    faded = [(luma * (1 - k / (len(day) - 1))).astype(np.uint8) for k, luma in enumerate(day)]
    share = black.score([black.is_black(luma) for luma in faded])
    assert share is not None
    assert 0 < share < 0.5
    mean = brightness.score([float(luma.mean()) for luma in faded])
    assert brightness.FILTER.verdict(mean, BrightnessConfig()) is None
    night = [(luma * 0.02).astype(np.uint8) for luma in day]
    for luma in night:  # a lamp over a thirtieth of the picture
        luma[: luma.shape[0] // 5, : luma.shape[1] // 6] = 230
    assert black.score([black.is_black(luma) for luma in night]) == 0
    mean = brightness.score([float(luma.mean()) for luma in night])
    assert brightness.FILTER.verdict(mean, BrightnessConfig()) == "too_dark"


def test_a_title_in_small_letters_is_black_and_a_lit_corner_is_not() -> None:
    card = np.full((144, 256), 6, np.uint8)
    assert black.is_black(card)
    assert black.is_black(cv2.putText(card.copy(), "The End", (100, 75), 0, 0.5, (255,)))
    card[:36, :64] = 120
    assert not black.is_black(card)


def test_no_sample_no_score() -> None:
    assert black.score([]) is None
