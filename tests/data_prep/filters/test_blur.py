"""Blur: the more a picture is blurred, the lower its score."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from data_prep.filters import blur


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_pristine"])
def test_the_score_falls_with_every_step_of_blur(pictures, name: str) -> None:
    for frame in pictures[name][::24]:
        luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        steps = [blur.sharpness(luma)]
        steps += [blur.sharpness(cv2.GaussianBlur(luma, (0, 0), s)) for s in (0.8, 1.6, 3.2)]
        assert all(after < 0.6 * before for before, after in pairwise(steps))


def test_the_variance_is_that_of_the_definition() -> None:
    luma = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    padded = np.pad(luma.astype(np.int64), 1, mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    assert blur.sharpness(luma) == pytest.approx((around - 4 * padded[1:-1, 1:-1]).var())
    assert blur.sharpness(np.full((20, 30), 200, np.uint8)) == 0


def test_a_fade_does_not_make_a_clip_blurred() -> None:
    assert blur.score([300.0, 310.0, 290.0, 0.0, 0.0]) == 290
    assert blur.score([]) is None
