"""Held-out clips and windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sampling import WindowConfig, held_out, window_starts

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


def test_frames_that_no_causal_tokenizer_codes_are_refused():
    with pytest.raises(ValueError, match="1 \\+ 4k"):
        WindowConfig(frames=16)
