"""Held-out clips and windows."""

from hypothesis import given
from hypothesis import strategies as st

from data_prep.sampling import (
    TRAIN,
    HeldOut,
    SizeConfig,
    WindowConfig,
    nearest,
    part_of,
    position,
    window_starts,
)

CLIPS = [f"clip-{number}" for number in range(400)]


def held_out(clips: list[str], share: float) -> set[str]:
    held = HeldOut.of(share, len(clips), min(clips, key=position, default=None))
    return {clip for clip in clips if held.split(clip) != TRAIN}


def test_a_clip_keeps_its_side_when_the_corpus_grows():
    small, large = held_out(CLIPS[:200], 0.2), held_out(CLIPS, 0.2)
    assert small == large & set(CLIPS[:200])
    assert 0.1 < len(large) / len(CLIPS) < 0.3


def test_a_small_corpus_holds_one_out_and_no_share_none():
    assert held_out(CLIPS[:2], 1e-9) == {min(CLIPS[:2], key=position)}
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


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 600))
def test_parts_are_even_to_their_largest_clip(sizes: list[int], shard_bytes: int):
    total, parts = sum(sizes), max(1, round(sum(sizes) / shard_bytes))
    begins = [sum(sizes[:n]) for n in range(len(sizes))]
    numbers = [part_of(b, s, total, parts) for b, s in zip(begins, sizes, strict=True)]
    assert numbers == sorted(numbers)
    assert 0 <= numbers[0] <= numbers[-1] < parts
    for number in range(parts):
        part = [d for d, n in zip(sizes, numbers, strict=True) if n == number]
        assert abs(sum(part) - total / parts) <= max(sizes)


def test_parts_of_equal_clips_are_equal():
    assert [part_of(2 * n, 2, 12, 3) for n in range(6)] == [0, 0, 1, 1, 2, 2]
    assert part_of(0, 2, 2, 1) == 0


def test_a_clip_gets_the_size_nearest_its_shape():
    square, wide, tall = (
        SizeConfig(height_px=h, width_px=w) for h, w in ((128, 128), (96, 160), (160, 96))
    )
    sizes = (square, wide, tall)
    assert [nearest(ratio, sizes) for ratio in (1.0, 16 / 9, 9 / 16, 1.2, 4 / 3)] == [
        square, wide, tall, square, wide,
    ]  # fmt: skip
    assert nearest(1.0, (wide, tall)) == wide
