"""Filters: windows account for every frame, thresholds mean what they say."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import filters
from data_prep.filters import FiltersConfig, brightness, duration, motion, resolution
from data_prep.filters.brightness import BrightnessConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.types import Scene, Scores


@given(
    frames=st.integers(1, 400),
    start=st.integers(0, 50),
    max_s=st.floats(0.1, 20.0),
    trim=st.integers(0, 30),
)
def test_windows_cover_what_the_trim_leaves_once(frames, start, max_s, trim) -> None:
    times = [(start + k) / 25 for k in range(frames)]
    shot = Scene(start, start + frames, times[0], (start + frames) / 25)
    config = DurationConfig(min_s=0.0, max_s=max_s, edge_trim_frames=trim)
    clips = duration.windows(shot, times, config)
    left = min(trim, (frames - 1) // 2)
    assert clips[0].start_frame == start + left
    assert clips[-1].end_frame == start + frames - left
    for a, b in pairwise(clips):
        assert (a.end_frame, a.end_s) == (b.start_frame, b.start_s)
        assert a.duration_s > max_s - 1 / 25 - 1e-5  # full: one more frame would not fit
    for clip in clips:
        assert clip.end_frame > clip.start_frame
        assert clip.duration_s <= max_s + 1e-5
        assert clip.duration_s == pytest.approx((clip.end_frame - clip.start_frame) / 25)


def test_motion_is_zero_for_a_still_and_the_step_for_a_step() -> None:
    grey = np.full((4, 4), 100, np.uint8)
    assert motion.difference(grey, grey) == 0
    assert motion.difference(grey, grey - 60) == motion.difference(grey - 60, grey) == 60
    assert motion.score([1.0, 3.0]) == 2
    assert motion.score([]) is None


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (duration.verdict(2.0, DurationConfig()), None),
        (duration.verdict(1.9, DurationConfig()), "too_short"),
        (resolution.verdict(144, ResolutionConfig()), None),
        (resolution.verdict(143, ResolutionConfig()), "low_resolution"),
        (motion.verdict(0.4, MotionConfig()), "still"),
        (motion.verdict(0.0, MotionConfig(min_score=0)), None),
        (motion.verdict(9.0, MotionConfig(max_score=8)), "restless"),
        (motion.verdict(None, MotionConfig()), None),
        (brightness.verdict(11.9, BrightnessConfig()), "too_dark"),
        (brightness.verdict(None, BrightnessConfig()), None),
    ],
)
def test_verdicts(got: str | None, expected: str | None) -> None:
    assert got == expected


def test_all_filters_are_asked() -> None:
    good = {"duration_s": 5.0, "short_side_px": 720.0, "motion": 5.0, "brightness": 90.0}
    assert filters.verdict(Scores(**good), FiltersConfig()) is None
    for name in good:
        assert filters.verdict(Scores(**{**good, name: 0.0}), FiltersConfig()) is not None


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="above max_s"):
        DurationConfig(min_s=5, max_s=2)
    with pytest.raises(ValueError, match="above max_score"):
        MotionConfig(min_score=5, max_score=2)
