"""Task protocol: what differs between the models that the engine trains."""

from typing import Any, Protocol

import torch

from data_prep.sample import Sample
from ray_jobs.training.config import StageConfig

Metrics = dict[str, float]


class Task(Protocol):
    """A model, its loss and its judge. It is sent to the workers, so it holds only settings."""

    unit: str
    """What throughput counts: ``"frames"`` or ``"tokens"``."""

    def build(self) -> torch.nn.Module:
        """Return a fresh model; weights from torch's global generator, which is seeded."""
        ...

    def loss(
        self, model: torch.nn.Module, samples: list[Sample], stage: StageConfig
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
        """Return the scalar loss, metrics to log (detached scalars) and how many units it read.

        Draw from ``torch.Generator().manual_seed(sample.seed)`` what is random for a sample:
        it is the same however many workers share the batch. The global generator is seeded too,
        by step and rank; workers that share sequences (``run.deepspeed.sequence_parallel``) get the
        same samples and the same seed, and must return the same loss of whole sequences.
        """
        ...

    def validate(
        self, model: torch.nn.Module, samples: list[Sample]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Judge on held-out samples: figures to log, and pictures (file name to PNG)."""
        ...

    def export(self, state: dict[str, torch.Tensor], folder: str) -> None:
        """Write ``model.safetensors`` and ``config.json`` into a local folder.

        Args:
            state: the state dict of what :meth:`build` returns, on the CPU.
            folder: made when missing.
        """
        ...

    def load(self, model: torch.nn.Module, uri: str) -> None:
        """Fill a built model from what :meth:`export` wrote.

        On the meta device only check that it fits; raise UserError if it does not.
        """
        ...
