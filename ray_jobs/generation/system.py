"""The interface of a generating system: its settings, its checks and its stages.

A system is a list of stages, each with actors and resources of its own. Groups of videos pass
through them: every stage but the last carries bytes to the next one, and the last yields frames.

Shapes: B video of a group, F frame, H W row and column, C = 3 colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from infra.config import Section
from ray_jobs.prompts import Prompt, TimedPrompt


@dataclass(frozen=True)
class FilmFormat:
    """What all films of a run have in common."""

    frames: int
    fps: float
    height_px: int
    width_px: int
    joins: tuple[int, ...] = ()
    """Index of the first frame after each join of two windows."""
    trained_frames: int | None = None
    """Frames of the longest clip that the model was trained on; None where that is not known."""


@dataclass(frozen=True)
class VideoRequest:
    """One video that is to be made."""

    video_id: str
    prompts: tuple[TimedPrompt, ...]
    """The first one from 0 s on."""
    seed: int


@dataclass(frozen=True)
class Group:
    """Videos that are made side by side."""

    videos: tuple[VideoRequest, ...]
    settings: SystemConfig
    """The system's section. In a sweep workers outlive a run, so it comes with the work."""


@dataclass(frozen=True)
class Frames:
    """Consecutive frames of all videos of a group."""

    frames_BFHWC: NDArray[np.uint8]
    join_colour_drift_B: Sequence[float] | None = None
    """Where the frames begin at a join: the distance of the mean colours before and after it."""


class CarryingWorker(Protocol):
    """Worker of a stage that is not the last one. Built once an actor, so that it holds a model."""

    def __call__(self, group: Group, carried: bytes) -> bytes:
        """Return what the next stage needs of a group; bounded, whatever the length of the films.

        Args:
            group: the videos.
            carried: what the stage before returned; empty for the first stage.
        """
        ...


class FrameWorker(Protocol):
    """Worker of the last stage. Built once an actor, so that it holds a model."""

    def __call__(self, group: Group, carried: bytes) -> Iterator[Frames]:
        """Yield the films of a group from their first frames to their last ones."""
        ...


@dataclass(frozen=True)
class Stage:
    """One step of a system and how to build its workers."""

    name: str
    """The key of its resources in the job's ``stage_resources``."""
    build: Callable[..., CarryingWorker] | Callable[..., FrameWorker]
    arguments: dict[str, Any] = field(default_factory=dict)
    """Where its models are, and nothing of a run's settings: sweeps share workers."""


class System(Protocol):
    """A system with the trained models that a job was given."""

    @property
    def models(self) -> dict[str, str]:
        """What each model is, and its artifact's fingerprint."""
        ...

    @property
    def film(self) -> FilmFormat:
        """What its films have in common."""
        ...

    def plan(self, prompts: Sequence[Prompt]) -> list[str]:
        """Say in lines for people what it will do with prompts.

        Raises:
            UserError: the models, the settings or the prompts cannot work.
        """
        ...

    def stages(self) -> list[Stage]:
        """Return its stages in order."""
        ...


class SystemConfig(Section):
    """Base of the settings of a system. Each has a `kind` of its own."""

    videos_at_once: Annotated[int, Field(ge=1)] = 1
    """Videos that a worker makes side by side: more of them in the same time, for their memory. A
    video is the one that it would be alone, but where rounding tips a near tie."""

    def open(self, inputs: Sequence[str]) -> System:
        """Return the system with its models, which are not loaded.

        Args:
            inputs: URIs of finished artifacts, in any order.

        Raises:
            UserError: they are not the artifacts that the system needs, or do not go together.
        """
        raise NotImplementedError
