"""Letterbox: bars are found to the pixel, and nothing lit is ever cut away."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.filters import letterbox
from data_prep.types import CropBox

WIDTH, HEIGHT = 256, 144


def _luma(frame_HWC: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.resize(frame_HWC, (WIDTH, HEIGHT)), cv2.COLOR_RGB2GRAY)


def _barred(luma_HW: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Scale a picture into a black frame with bars this wide."""
    inner = cv2.resize(luma_HW, (WIDTH - left - right, HEIGHT - top - bottom))
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(3,))


@pytest.mark.parametrize("bars", [(0, 18, 0, 18), (56, 0, 56, 0), (30, 20, 10, 4), (0, 0, 0, 0)])
@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny"])
def test_bars_around_real_pictures_are_found(pictures, name: str, bars) -> None:
    left, top, right, bottom = bars
    spans = [letterbox.lit(_barred(_luma(f), *bars)) for f in pictures[name][::12]]
    box = letterbox.crop_box(spans, WIDTH, HEIGHT)
    assert box is not None
    assert box.x == pytest.approx(left / WIDTH, abs=1 / WIDTH)
    assert box.y == pytest.approx(top / HEIGHT, abs=1 / HEIGHT)
    assert box.x + box.width == pytest.approx(1 - right / WIDTH, abs=1 / WIDTH)
    assert box.y + box.height == pytest.approx(1 - bottom / HEIGHT, abs=1 / HEIGHT)
    share = 1 - (WIDTH - left - right) * (HEIGHT - top - bottom) / (WIDTH * HEIGHT)
    assert letterbox.score(box) == pytest.approx(share, abs=0.02)


def test_black_samples_leave_the_bars_and_a_passing_bar_is_none(pictures) -> None:
    day = [_luma(frame) for frame in pictures["bigbuckbunny"][::12]]
    dark = letterbox.lit(np.full((HEIGHT, WIDTH), 5, np.uint8))
    assert dark is None
    barred = [letterbox.lit(_barred(luma, 0, 18, 0, 18)) for luma in day]
    whole = letterbox.crop_box(barred, WIDTH, HEIGHT)
    assert letterbox.crop_box([dark, *barred, dark], WIDTH, HEIGHT) == whole
    opened = [*barred[:-1], letterbox.lit(day[-1])]
    assert letterbox.crop_box(opened, WIDTH, HEIGHT) == CropBox(0, 0, 1, 1)


@given(st.lists(st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)), max_size=5))
def test_the_box_holds_every_lit_pixel_and_no_more(places) -> None:
    spans = []
    for x, y in places:
        luma = np.full((HEIGHT, WIDTH), letterbox.LUMA, np.uint8)
        luma[y, x] += 1
        spans.append(letterbox.lit(luma))
    box = letterbox.crop_box(spans, WIDTH, HEIGHT)
    if not places:
        assert box is None
        assert letterbox.score(box) is None
        return
    assert box is not None
    xs, ys = zip(*places, strict=True)
    assert (round(box.x * WIDTH), round(box.y * HEIGHT)) == (min(xs), min(ys))
    assert round((box.x + box.width) * WIDTH) == max(xs) + 1
    assert round((box.y + box.height) * HEIGHT) == max(ys) + 1
