"""Held-out clips and windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sampling import (
    SizeConfig,
    WindowConfig,
    even_parts,
    held_out,
    nearest,
    window_starts,
)

CLIPS = [f"clip-{number}" for number in range(400)]


def test_a_clip_keeps_its_side_when_the_corpus_grows():
    small, large = held_out(CLIPS[:200], 0.2), held_out(CLIPS, 0.2)
    assert small == large & set(CLIPS[:200])
    assert 0.1 < len(large) / len(CLIPS) < 0.3


def test_a_small_corpus_holds_one_out_and_no_share_none():
    assert len(held_out(CLIPS[:2], 1e-9)) == 1
    assert held_out(CLIPS[:1], 0.2) in (set(), {CLIPS[0]})
    assert held_out(CLIPS, 0.0) == set()


@given(st.integers(0, 300), st.integers(0, 20), st.integers(1, 90))
def test_windows_lie_within_the_clip(frames: int, k: int, stride: int):
    window = WindowConfig(frames=1 + 4 * k, stride=stride)
    starts = window_starts(frames, window)
    assert all(start + window.frames <= frames for start in starts)
    assert bool(starts) == (frames >= window.frames)
    if starts:
        assert frames - (starts[-1] + window.frames) < stride


@given(st.lists(st.floats(0.1, 60), min_size=1, max_size=200), st.floats(1, 600))
def test_parts_are_even_to_their_longest_clip(durations: list[float], part_s: float):
    numbers = even_parts(durations, part_s)
    assert numbers == sorted(numbers)
    count = max(1, round(sum(durations) / part_s))
    mean = sum(durations) / count
    for number in range(count):
        part = [d for d, n in zip(durations, numbers, strict=True) if n == number]
        assert abs(sum(part) - mean) <= max(durations) + 1e-6


def test_parts_of_equal_clips_are_equal():
    assert even_parts([2.0] * 6, 4.0) == [0, 0, 1, 1, 2, 2]
    assert even_parts([2.0], 300.0) == [0]


def test_a_clip_gets_the_size_nearest_its_shape():
    square, wide, tall = (
        SizeConfig(height_px=h, width_px=w) for h, w in ((128, 128), (96, 160), (160, 96))
    )
    sizes = (square, wide, tall)
    assert [nearest(ratio, sizes) for ratio in (1.0, 16 / 9, 9 / 16, 1.2, 4 / 3)] == [
        square, wide, tall, square, wide,
    ]  # fmt: skip
    assert nearest(1.0, (wide, tall)) == wide


def test_frames_that_no_causal_tokenizer_codes_are_refused():
    with pytest.raises(ValueError, match="1 \\+ 4k"):
        WindowConfig(frames=16)
