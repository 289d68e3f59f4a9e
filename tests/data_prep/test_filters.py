"""Filters: windows account for every frame, thresholds mean what they say."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import filters
from data_prep.filters import (
    FiltersConfig,
    aspect,
    black,
    blur,
    brightness,
    duration,
    frame_rate,
    letterbox,
    motion,
    resolution,
)
from data_prep.filters.aspect import AspectConfig
from data_prep.filters.black import BlackConfig
from data_prep.filters.blur import BlurConfig
from data_prep.filters.brightness import BrightnessConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.frame_rate import FrameRateConfig
from data_prep.filters.letterbox import LetterboxConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.types import Scene, Scores, VideoInfo

GOOD = Scores(
    duration_s=5.0,
    short_side_px=720.0,
    aspect_ratio=16 / 9,
    fps=24.0,
    black_share=0.0,
    brightness=90.0,
    letterbox_share=0.0,
    motion=5.0,
    sharpness=300.0,
)
BAD = {
    "low_resolution": {"short_side_px": 100.0},
    "tall": {"aspect_ratio": 0.2},
    "low_frame_rate": {"fps": 1.0},
    "too_short": {"duration_s": 1.0},
    "black": {"black_share": 1.0},
    "too_dark": {"brightness": 1.0},
    "letterbox": {"letterbox_share": 0.9},
    "still": {"motion": 0.0},
    "blurred": {"sharpness": 1.0},
}
"""One fault for each score, in the order of the filters."""
STRICT = FiltersConfig(
    letterbox=LetterboxConfig(max_share=0.5), blur=BlurConfig(min_sharpness=20.0)
)
"""The filters that keep all by default, set to work."""


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
        (aspect.verdict(1 / 3, AspectConfig()), None),
        (aspect.verdict(3.0, AspectConfig()), None),
        (aspect.verdict(0.3, AspectConfig()), "tall"),
        (aspect.verdict(3.01, AspectConfig()), "wide"),
        (frame_rate.verdict(16.0, FrameRateConfig()), None),
        (frame_rate.verdict(120.0, FrameRateConfig()), None),
        (frame_rate.verdict(9.9, FrameRateConfig()), "low_frame_rate"),
        (frame_rate.verdict(240.0, FrameRateConfig()), "high_frame_rate"),
        (black.verdict(0.5, BlackConfig()), None),
        (black.verdict(0.51, BlackConfig()), "black"),
        (black.verdict(1.0, BlackConfig(max_share=1.0)), None),
        (black.verdict(None, BlackConfig(max_share=0.0)), None),
        (letterbox.verdict(0.99, LetterboxConfig()), None),
        (letterbox.verdict(0.26, LetterboxConfig(max_share=0.25)), "letterbox"),
        (letterbox.verdict(None, LetterboxConfig(max_share=0.0)), None),
        (blur.verdict(0.0, BlurConfig()), None),
        (blur.verdict(19.9, BlurConfig(min_sharpness=20.0)), "blurred"),
        (blur.verdict(None, BlurConfig(min_sharpness=20.0)), None),
    ],
)
def test_verdicts(got: str | None, expected: str | None) -> None:
    assert got == expected


def test_shape_and_rate_are_those_of_the_video() -> None:
    info = VideoInfo(10.0, 24000 / 1001, 1920, 800, 240, "h264")
    assert aspect.score(info) == 2.4
    assert frame_rate.score(info) == pytest.approx(23.976, abs=1e-3)


def test_every_score_is_asked_and_the_order_is_fixed() -> None:
    assert {name for fault in BAD.values() for name in fault} == {f.name for f in fields(Scores)}
    assert filters.verdict(GOOD, STRICT) is None
    faulty = replace(
        GOOD, **{name: value for fault in BAD.values() for name, value in fault.items()}
    )
    for reason, fault in BAD.items():
        assert filters.verdict(replace(GOOD, **fault), STRICT) == reason
        assert filters.verdict(faulty, STRICT) == reason
        faulty = replace(faulty, **{name: getattr(GOOD, name) for name in fault})
    assert faulty == GOOD


def test_score_only_keeps_whatever_is_wrong() -> None:
    keeping = STRICT.model_copy(update={"score_only": True})
    assert all(filters.verdict(replace(GOOD, **fault), keeping) is None for fault in BAD.values())


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="above max_s"):
        DurationConfig(min_s=5, max_s=2)
    with pytest.raises(ValueError, match="above max_score"):
        MotionConfig(min_score=5, max_score=2)
    with pytest.raises(ValueError, match="above max_ratio"):
        AspectConfig(min_ratio=2.0, max_ratio=1.0)
    with pytest.raises(ValueError, match="above max_fps"):
        FrameRateConfig(min_fps=60.0, max_fps=30.0)
