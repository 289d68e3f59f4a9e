"""Set of digests that were seen, in 16 bytes each, for tens of millions of them."""

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.bytes_]
"""Of dtype ``S16``; cut from a cryptographic hash, so that two inputs never share one by chance."""
DTYPE = np.dtype("S16")


class SeenDigests:
    """Tells which digests of a batch are new, first come first.

    Digests are kept in sorted runs, each at least twice as long as the next one: a batch is looked
    up in a few of them, and every digest is merged into a longer run only now and then.
    """

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def add(self, batch: Digests) -> NDArray[np.bool_]:
        """Take in a batch, (n,); return for each whether it was neither there nor before it."""
        firsts = np.zeros(len(batch), np.bool_)
        unique, places = np.unique(batch, return_index=True)
        known = np.zeros(len(unique), np.bool_)
        for run in self._runs:
            at = np.searchsorted(run, unique)
            known |= run[np.minimum(at, len(run) - 1)] == unique
        firsts[places[~known]] = True
        new = unique[~known]
        while self._runs and len(self._runs[-1]) < 2 * len(new):
            new = np.concatenate([self._runs.pop(), new])
            new.sort()  # in place: at most two copies of the digests are held
        if len(new):
            self._runs.append(new)
        return firsts
