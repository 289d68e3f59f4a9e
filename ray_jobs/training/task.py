"""Task protocol: what differs between the models that the engine trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from data_prep.sample import Sample
from ray_jobs.training.config import StageConfig
from ray_jobs.training.initial import InitialConfig

State = dict[str, Tensor]
"""A model's state dict, full and on the CPU."""


@dataclass(frozen=True)
class StepLoss:
    """What a task makes of a batch."""

    loss: Tensor
    """The scalar to minimize."""
    metrics: dict[str, Tensor]
    """Detached scalars to log."""
    units: int
    """Frames or tokens read."""


@dataclass(frozen=True)
class Judgement:
    """What a task makes of held-out samples."""

    figures: dict[str, Any]
    """To log, and for the summary."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name to PNG."""


class Task(Protocol):
    """A model, its loss and its validation. It is sent to the workers, so it holds settings only.

    Parameters that `frozen` names never train. They are kept out of checkpoints, averages and full
    states; :meth:`build`, or :meth:`load` of ``how: base``, fills them in every attempt.
    """

    unit: str
    """What throughput counts: ``"frames"`` or ``"tokens"``."""
    frozen: tuple[str, ...]
    """Names or patterns of parameters and buffers."""

    def build(self) -> nn.Module:
        """Return a fresh model; weights from torch's global generator, which is seeded."""
        ...

    def loss(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> StepLoss:
        """Return the loss of a batch.

        Draw from ``torch.Generator().manual_seed(sample.seed)`` what is random for a sample:
        it is the same however many workers share the batch. The global generator is seeded too,
        by step and rank; workers that share sequences (``run.deepspeed.sequence_parallel``) get the
        same samples and the same seed, and must return the same loss of whole sequences.
        """
        ...

    def validate(self, model: nn.Module, samples: list[Sample], stage: StageConfig) -> Judgement:
        """Judge the model on held-out samples, whose seeds are the same in each validation."""
        ...

    def inherit(
        self,
        state: State,
        before: Sequence[StageConfig],
        stage: StageConfig,
        initial: InitialConfig | None,
    ) -> State:
        """Return the weights with which a stage begins, from those that the one before ended with.

        Args:
            state: without what `frozen` names.
            before: all stages before, the last one last.
            stage: the one that begins.
            initial: what the first stage began with.
        """
        ...

    def export(self, state: State, folder: str) -> None:
        """Write ``model.safetensors`` and ``config.json`` into a local folder.

        Args:
            state: of what :meth:`build` returns, without what `frozen` names.
            folder: made when missing.
        """
        ...

    def load(self, model: nn.Module, initial: InitialConfig) -> None:
        """Fill a built model, or of ``how: base`` what `frozen` names, from an exported one.

        On the meta device only check that it fits.

        Raises:
            UserError: it does not fit, or there is no such ``how`` for this model.
        """
        ...
