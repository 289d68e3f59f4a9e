"""Derived seeds: stable, and apart."""

from infra.seeding import derive, rng


def test_stable_and_apart():
    assert derive(0, "loader", 1) == 8886666673799710477  # the same on every machine
    seeds = {derive(s, n, i) for s in range(3) for n in ("a", "b") for i in range(3)}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert rng(0, "x").random() == rng(0, "x").random() != rng(0, "y").random()
