"""Near-duplicates: pictures whose perceptual hashes differ in few bits from an earlier one.

Comparing all pairs is out of reach for a million clips. The 64 bits are cut into one band more than
bits may differ, so two near hashes are equal in at least one band (the pigeonhole principle; as in
multi-index hashing, Norouzi et al. 2012). Only hashes that share a band are compared, and exactly.
"""

from itertools import pairwise

import numpy as np

MAX_BITS = 8
"""With more, the bands become so narrow that nearly all pairs share one."""
_BITS = 64


def near_duplicates(hashes_N: np.ndarray, max_bits: int) -> np.ndarray:
    """Return for each hash whether an earlier one differs from it in at most `max_bits` bits.

    The earlier one counts whether or not it is itself a near-duplicate, so the answer for the
    first hashes does not change when others come after them.

    Args:
        hashes_N: uint64.
        max_bits: 0 to :data:`MAX_BITS`.

    Returns:
        bool (N,).
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"max_bits {max_bits}: allowed are 0 to {MAX_BITS}")
    found_N = np.ones(len(hashes_N), bool)
    # Equal hashes first, so that a picture that is there a thousand times is compared once.
    distinct, firsts = np.unique(np.asarray(hashes_N, np.uint64), return_index=True)
    order = np.argsort(firsts)
    found_N[firsts[order]] = _near_an_earlier(distinct[order], max_bits)
    return found_N


def _near_an_earlier(hashes_M: np.ndarray, max_bits: int) -> np.ndarray:
    """Do the work for hashes that are all different."""
    found_M = np.zeros(len(hashes_M), bool)
    edges = np.linspace(0, _BITS, max_bits + 2).round().astype(int)
    for low, high in pairwise(edges.tolist()) if max_bits else ():
        band_M = (hashes_M >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        by_band = np.argsort(band_M, kind="stable")  # within a band the order stays
        sorted_M, band_M = hashes_M[by_band], band_M[by_band]
        later = np.arange(1, len(hashes_M))
        for back in range(1, len(hashes_M)):  # compare with the hash `back` places before
            later = later[later >= back]
            later = later[(band_M[later] == band_M[later - back]) & ~found_M[by_band[later]]]
            if not len(later):
                break
            apart = np.bitwise_count(sorted_M[later] ^ sorted_M[later - back])
            found_M[by_band[later[apart <= max_bits]]] = True
    return found_M
