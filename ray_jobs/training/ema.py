"""Exponential moving average of the weights, partitioned over ranks as the optimizer is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """The average of each rank's own part of the weights, in fp32.

    Args:
        masters: the tensors that the optimizer steps (:func:`ray_jobs.training.zero.masters`).
        decay: share of the average that a step keeps, in [0, 1).
    """

    def __init__(self, masters: Sequence[Tensor], decay: float) -> None:
        self._masters, self._decay = list(masters), decay
        self._average = [tensor.detach().clone() for tensor in masters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        for master, average in zip(self._masters, self._average, strict=True):
            average.lerp_(master.detach(), 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the optimizer's tensors hold the average while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for master, average in zip(self._masters, self._average, strict=True):
            kept = master.detach().clone()
            master.data.copy_(average)
            average.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs."""
        return {str(number): tensor.cpu() for number, tensor in enumerate(self._average)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        for number, tensor in enumerate(self._average):
            tensor.copy_(state[str(number)])
