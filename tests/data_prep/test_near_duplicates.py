"""Near-duplicates: exactly those that comparing all pairs finds, in whatever parts they come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.near_duplicates import MAX_BITS, near_duplicates


@st.composite
def _hashes(draw) -> list[int]:
    """Hashes of which many differ from another one in few bits, or in none."""
    found = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 25))):
        value = draw(st.sampled_from(found))
        for bit in draw(st.sets(st.integers(0, 63), max_size=MAX_BITS + 2)):
            value ^= 1 << bit
        found.append(value)
    return draw(st.permutations(found))


def _all_pairs(hashes: list[int], max_bits: int) -> list[bool]:
    return [
        any((value ^ earlier).bit_count() <= max_bits for earlier in hashes[:place])
        for place, value in enumerate(hashes)
    ]


@given(_hashes(), st.integers(0, MAX_BITS))
def test_it_finds_what_all_pairs_would(hashes: list[int], max_bits: int) -> None:
    got = near_duplicates(np.array(hashes, np.uint64), max_bits)
    assert got.tolist() == _all_pairs(hashes, max_bits)


@pytest.mark.parametrize("max_bits", [0, 3, 8])
def test_many_in_one_band_and_many_in_all(max_bits: int) -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes[1000:2000] &= np.uint64(0xFFFF)  # alike in three quarters of their bits
    hashes[2000:] = hashes[0] ^ np.uint64(1) << rng.integers(0, 64, 1000).astype(np.uint64)
    expected = _all_pairs([int(value) for value in hashes], max_bits)
    assert near_duplicates(hashes, max_bits).tolist() == expected


@given(_hashes(), st.integers(0, 31))
def test_what_comes_later_changes_nothing(hashes: list[int], until: int) -> None:
    whole = near_duplicates(np.array(hashes, np.uint64), 4)
    part = near_duplicates(np.array(hashes[:until], np.uint64), 4)
    assert whole[:until].tolist() == part.tolist()


def test_the_edges() -> None:
    assert near_duplicates(np.empty(0, np.uint64), 4).tolist() == []
    for bits in (-1, MAX_BITS + 1):
        with pytest.raises(ValueError, match=f"{bits}: allowed are 0 to 8"):
            near_duplicates(np.empty(0, np.uint64), bits)
