"""Digests: each is new once, in whatever batches they come."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.seen import DTYPE, SeenDigests


@given(st.lists(st.lists(st.integers(0, 300), max_size=40), max_size=30))
def test_a_digest_is_new_where_it_comes_first(batches: list[list[int]]) -> None:
    seen, known = SeenDigests(), set[int]()
    for batch in batches:
        digests = np.array([number.to_bytes(16, "little") for number in batch], DTYPE)
        expected = []
        for number in batch:
            expected.append(number not in known)
            known.add(number)
        assert seen.add(digests).tolist() == expected


def test_memory_and_runs_stay_small() -> None:
    seen, draw = SeenDigests(), np.random.default_rng(0)
    for _ in range(200):
        assert seen.add(_digests(draw, 500)).all()
    assert sum(run.nbytes for run in seen._runs) == 16 * 500 * 200
    assert len(seen._runs) < 12


def _digests(draw: np.random.Generator, count: int) -> np.ndarray:
    return np.frombuffer(draw.bytes(16 * count), DTYPE)
