"""Seeds derived by name, so that no two uses of randomness share a stream."""

import hashlib
import random

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the use that `names` spell out.

    The same arguments give the same seed on every machine and Python version.

    Args:
        seed: the run's seed, any integer.
        names: what the randomness is for, such as ``("loader", epoch)``.
    """
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded by :func:`derive`."""
    return np.random.default_rng(derive(seed, *names))


def seed_all(seed: int) -> None:
    """Seed Python's and NumPy's global generators (torch is seeded by its own users)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
