"""Codebook use of a set of token ids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CodebookUsage:
    """Use of a codebook by some ids."""

    counts: NDArray[np.int64]
    """Times that each code occurs, (size,)."""
    used: int
    """Codes that occur at all."""
    perplexity: float
    """exp of the entropy: the number of codes in effective use, 1 to size; 0 without ids."""


def usage(ids: Any, size: int) -> CodebookUsage:
    """Count the codes of ids.

    Args:
        ids: integers of any shape: a NumPy array, a CPU tensor or a list.
        size: number of codes.

    Raises:
        ValueError: an id is not an integer in [0, size).
    """
    flat = np.asarray(ids).reshape(-1)
    if flat.size and not np.issubdtype(flat.dtype, np.integer):
        raise ValueError(f"ids of type {flat.dtype}: expected integers")
    if flat.size and (flat.min() < 0 or flat.max() >= size):
        raise ValueError(f"ids from {flat.min()} to {flat.max()}: allowed are 0 to {size - 1}")
    counts = np.bincount(flat.astype(np.int64), minlength=size)
    perplexity = math.exp(unigram_entropy_nats(counts)) if flat.size else 0.0
    return CodebookUsage(counts, int((counts > 0).sum()), perplexity)


def unigram_entropy_nats(counts: Sequence[int] | NDArray[np.int64]) -> float:
    """Return the entropy of the code frequencies, in nats a token.

    It is the loss of the best model that ignores context: a trained one must be below.

    Raises:
        ValueError: there is no count, or a negative one.
    """
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    if total <= 0 or values.min() < 0:
        raise ValueError(f"counts with sum {total:g}: expected non-negative, at least one positive")
    shares = values[values > 0] / total
    return float(max(0.0, -(shares * np.log(shares)).sum()))
