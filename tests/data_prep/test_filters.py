"""Filters: windows account for every frame, thresholds mean what they say."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import filters
from data_prep.filters import (
    FiltersConfig,
    aesthetic,
    aspect,
    black,
    blur,
    brightness,
    duration,
    frame_rate,
    letterbox,
    motion,
    resolution,
    safety,
    similarity,
    text,
)
from data_prep.filters.aesthetic import AestheticConfig
from data_prep.filters.aspect import AspectConfig
from data_prep.filters.black import BlackConfig
from data_prep.filters.blur import BlurConfig
from data_prep.filters.brightness import BrightnessConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.frame_rate import FrameRateConfig
from data_prep.filters.letterbox import LetterboxConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.filters.safety import SafetyConfig
from data_prep.filters.similarity import SimilarityConfig
from data_prep.filters.text import TextConfig
from data_prep.selection import SCORES
from data_prep.types import Scene, VideoInfo

GOOD = {
    "duration_s": 5.0,
    "short_side_px": 720.0,
    "aspect_ratio": 16 / 9,
    "fps": 24.0,
    "hdr": 0.0,
    "black_share": 0.0,
    "brightness": 90.0,
    "letterbox_share": 0.0,
    "motion": 5.0,
    "sharpness": 300.0,
    "unsafe": 0.01,
    "text_area": 0.0,
    "caption_similarity": 0.3,
    "aesthetic": 6.0,
}
BAD = {
    "low_resolution": {"short_side_px": 100.0},
    "tall": {"aspect_ratio": 0.2},
    "low_frame_rate": {"fps": 1.0},
    "hdr": {"hdr": 1.0},
    "too_short": {"duration_s": 1.0},
    "black": {"black_share": 1.0},
    "too_dark": {"brightness": 1.0},
    "letterbox": {"letterbox_share": 0.9},
    "still": {"motion": 0.0},
    "blurred": {"sharpness": 1.0},
    "unsafe": {"unsafe": 0.9},
    "text": {"text_area": 0.8},
    "off_caption": {"caption_similarity": 0.05},
    "unaesthetic": {"aesthetic": 2.0},
}
"""One fault for each score, in the order of the filters."""
STRICT = FiltersConfig(
    letterbox=LetterboxConfig(max_share=0.5),
    blur=BlurConfig(min_sharpness=20.0),
    similarity=SimilarityConfig(min_cosine=0.2),
    aesthetic=AestheticConfig(min_score=4.5),
)
"""The filters that keep all by default, set to work."""


@st.composite
def _shots(draw, uneven: bool) -> tuple[Scene, list[float]]:
    """A shot at 25 frames a second, or of frames that are shown for 4 to 200 ms."""
    count, start = draw(st.integers(1, 400)), draw(st.integers(0, 50))
    lengths = [0.04] * count
    if uneven:
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        lengths = rng.uniform(0.004, 0.2, count).tolist()
    begins = [start / 25, *(start / 25 + np.cumsum(lengths)).tolist()]
    return Scene(start, start + count, begins[0], begins[-1]), begins[:-1]


@st.composite
def _cutting(draw) -> DurationConfig:
    max_s = draw(st.floats(0.5, 20.0))
    stride_s = draw(st.none() | st.floats(0.1, max_s))
    trim_s = draw(st.sampled_from([0.0, 0.3, 2.0]))
    return DurationConfig(min_s=0.0, max_s=max_s, stride_s=stride_s, trim_s=trim_s)


@pytest.mark.parametrize("uneven", [False, True])
@given(data=st.data())
def test_windows_cover_what_the_trim_leaves_and_none_is_short_or_long(uneven, data) -> None:
    shot, times = data.draw(_shots(uneven))
    config = data.draw(_cutting())
    clips = duration.windows(shot, times, config)
    begins = [*times, shot.end_s]
    frame_s = max(np.diff(begins))
    inside = [
        k
        for k in range(len(times))
        if begins[k] >= shot.start_s + config.trim_s - 1e-6
        and begins[k + 1] <= shot.end_s - config.trim_s + 1e-6
    ] or [(len(times) - 1) // 2]
    assert clips[0].start_frame == shot.start_frame + inside[0]
    assert clips[-1].end_frame == shot.start_frame + inside[-1] + 1
    for clip in clips:
        first, end = (frame - shot.start_frame for frame in (clip.start_frame, clip.end_frame))
        assert (clip.start_s, clip.end_s) == (begins[first], begins[end])
        assert 0 < clip.duration_s <= config.max_s + 1e-5
        if len(clips) > 1:
            assert clip.duration_s >= min(config.max_s / 2, config.max_s - frame_s) - frame_s - 1e-5
    for a, b in pairwise(clips):
        assert a.start_frame < b.start_frame <= a.end_frame < b.end_frame
        if config.stride_s is None:
            assert a.end_frame == b.start_frame
        elif not uneven:  # else a window that lies within its neighbour may be left out
            assert b.start_s - a.start_s <= config.stride_s + frame_s + 1e-5


def test_windows_of_a_minute_and_a_second_are_two_halves() -> None:
    times = [k / 25 for k in range(61 * 25)]
    shot = Scene(0, len(times), 0.0, 61.0)
    clips = duration.windows(shot, times, DurationConfig())
    assert [(c.start_frame, c.end_frame) for c in clips] == [(0, 763), (763, 1525)]
    clips = duration.windows(shot, times, DurationConfig(max_s=20.0, stride_s=10.0, trim_s=0.5))
    assert [(c.start_s, c.end_s) for c in clips] == [
        (0.52, 20.52),
        (10.52, 30.52),
        (20.52, 40.52),
        (30.52, 50.52),
        (40.52, 60.48),
    ]


def test_motion_is_zero_for_a_still_and_the_step_for_a_step() -> None:
    grey = np.full((4, 4), 100, np.uint8)
    assert motion.difference(grey, grey) == 0
    assert motion.difference(grey, grey - 60) == motion.difference(grey - 60, grey) == 60
    assert motion.score([1.0, 3.0]) == 2
    assert motion.score([]) is None


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (duration.FILTER.verdict(2.0, DurationConfig()), None),
        (duration.FILTER.verdict(1.9, DurationConfig()), "too_short"),
        (resolution.FILTER.verdict(144, ResolutionConfig()), None),
        (resolution.FILTER.verdict(143, ResolutionConfig()), "low_resolution"),
        (motion.FILTER.verdict(0.4, MotionConfig()), "still"),
        (motion.FILTER.verdict(0.0, MotionConfig(min_score=0)), None),
        (motion.FILTER.verdict(9.0, MotionConfig(max_score=8)), "restless"),
        (motion.FILTER.verdict(None, MotionConfig()), None),
        (brightness.FILTER.verdict(11.9, BrightnessConfig()), "too_dark"),
        (brightness.FILTER.verdict(None, BrightnessConfig()), None),
        (aspect.FILTER.verdict(1 / 3, AspectConfig()), None),
        (aspect.FILTER.verdict(3.0, AspectConfig()), None),
        (aspect.FILTER.verdict(0.3, AspectConfig()), "tall"),
        (aspect.FILTER.verdict(3.01, AspectConfig()), "wide"),
        (frame_rate.FILTER.verdict(16.0, FrameRateConfig()), None),
        (frame_rate.FILTER.verdict(120.0, FrameRateConfig()), None),
        (frame_rate.FILTER.verdict(9.9, FrameRateConfig()), "low_frame_rate"),
        (frame_rate.FILTER.verdict(240.0, FrameRateConfig()), "high_frame_rate"),
        (black.FILTER.verdict(0.5, BlackConfig()), None),
        (black.FILTER.verdict(0.51, BlackConfig()), "black"),
        (black.FILTER.verdict(1.0, BlackConfig(max_share=1.0)), None),
        (black.FILTER.verdict(None, BlackConfig(max_share=0.0)), None),
        (letterbox.FILTER.verdict(0.99, LetterboxConfig()), None),
        (letterbox.FILTER.verdict(0.26, LetterboxConfig(max_share=0.25)), "letterbox"),
        (letterbox.FILTER.verdict(None, LetterboxConfig(max_share=0.0)), None),
        (blur.FILTER.verdict(0.0, BlurConfig()), None),
        (blur.FILTER.verdict(19.9, BlurConfig(min_sharpness=20.0)), "blurred"),
        (blur.FILTER.verdict(None, BlurConfig(min_sharpness=20.0)), None),
        (safety.FILTER.verdict(0.5, SafetyConfig()), None),
        (safety.FILTER.verdict(0.51, SafetyConfig()), "unsafe"),
        (safety.FILTER.verdict(None, SafetyConfig(max_unsafe=0.0)), None),
        (text.FILTER.verdict(0.2, TextConfig()), None),
        (text.FILTER.verdict(0.21, TextConfig()), "text"),
        (text.FILTER.verdict(None, TextConfig(max_area=0.0)), None),
        (similarity.FILTER.verdict(-1.0, SimilarityConfig()), None),
        (similarity.FILTER.verdict(0.19, SimilarityConfig(min_cosine=0.2)), "off_caption"),
        (similarity.FILTER.verdict(None, SimilarityConfig(min_cosine=0.2)), None),
        (aesthetic.FILTER.verdict(-9.0, AestheticConfig()), None),
        (aesthetic.FILTER.verdict(4.4, AestheticConfig(min_score=4.5)), "unaesthetic"),
        (aesthetic.FILTER.verdict(None, AestheticConfig(min_score=4.5)), None),
    ],
)
def test_verdicts(got: str | None, expected: str | None) -> None:
    assert got == expected


def test_shape_and_rate_are_those_of_the_video() -> None:
    info = VideoInfo(10.0, 24000 / 1001, 1920, 800, 240, "h264")
    assert aspect.score(info) == 2.4
    assert frame_rate.score(info) == pytest.approx(23.976, abs=1e-3)


def test_every_score_is_asked_and_the_order_is_fixed() -> None:
    assert {name for fault in BAD.values() for name in fault} == set(GOOD) == set(SCORES)
    assert filters.verdict(GOOD, STRICT) is None
    faulty = {**GOOD, **{name: value for fault in BAD.values() for name, value in fault.items()}}
    for reason, fault in BAD.items():
        assert filters.verdict({**GOOD, **fault}, STRICT) == reason
        assert filters.verdict(faulty, STRICT) == reason
        faulty = {**faulty, **{name: GOOD[name] for name in fault}}
    assert faulty == GOOD


def test_what_models_see_in_frames_makes_a_score() -> None:
    assert text.score([0.1, 0.3]) == 0.2
    assert safety.score([0.1, 0.7, 0.2]) == 0.7
    assert similarity.score([0.25, 0.35]) == 0.3
    assert aesthetic.score([4.0, 6.0]) == 5
    assert {f.score([]) for f in (text, safety, similarity, aesthetic)} == {None}
    left = np.array([[0, 0], [49, 0], [49, 99], [0, 99]])
    assert text.area([], 100, 100) == 0
    assert text.area([left], 100, 100) == text.area([left, left], 100, 100) == 0.5
    right = left + np.array([50, 0])
    assert text.area([left, right], 100, 100) == 1


def test_score_only_keeps_whatever_is_wrong() -> None:
    keeping = STRICT.model_copy(update={"score_only": True})
    assert all(filters.verdict({**GOOD, **fault}, keeping) is None for fault in BAD.values())


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="above max_s"):
        DurationConfig(min_s=5, max_s=2)
    with pytest.raises(ValueError, match="above max_score"):
        MotionConfig(min_score=5, max_score=2)
    with pytest.raises(ValueError, match="above max_ratio"):
        AspectConfig(min_ratio=2.0, max_ratio=1.0)
    with pytest.raises(ValueError, match="above max_fps"):
        FrameRateConfig(min_fps=60.0, max_fps=30.0)
