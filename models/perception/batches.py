"""Batches of one size, so that a score does not depend on how many frames come with one."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def fixed(items: Sequence[T], size: int) -> Iterator[tuple[list[T], int]]:
    """Yield batches of exactly `size`, the last filled up by its last item, and how many count."""
    for start in range(0, len(items), size):
        batch = list(items[start : start + size])
        yield batch + [batch[-1]] * (size - len(batch)), len(batch)
