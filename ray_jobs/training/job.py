"""Common parts of all training jobs: keys, checks of input and stages, the plan's lines."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from infra import artifact
from infra.artifact import ArtifactInfo, Output
from infra.config import JobConfig
from infra.errors import UserError
from ray_jobs.training.config import RunConfig, StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.launch import check, check_data, launch
from ray_jobs.training.task import Task

S = TypeVar("S", bound=StageConfig)


class TrainConfig(JobConfig, Generic[S]):
    """Keys of every training job, which has stages of a class S."""

    input_keys: ClassVar[tuple[str, ...]] = ("input", "initial.from")
    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "run.tracking")

    stages: Annotated[tuple[S, ...], Field(min_length=1)]
    run: RunConfig = RunConfig()
    initial: InitialConfig | None = None
    """Weights to start from; None: random ones."""


def check_job(task: Task, config: TrainConfig[Any]) -> None:
    """Refuse settings that no run of `task` can have; see :func:`launch.check`."""
    check(task, config.stages, config.run, config.initial, config.resources)


def check_input(config: TrainConfig[Any], kind: str) -> ArtifactInfo:
    """Return what the run's shards say of themselves.

    Raises:
        UserError: there is not one input, it is no finished artifact of the kind, or it lacks what
            a stage trains on.
    """
    if len(config.input) != 1:
        many = len(config.input)
        raise UserError(f"input: {many} URIs; allowed is one artifact of kind {kind}")
    info = artifact.read(config.input[0], (kind,))
    check_data(config.input[0], config.stages)
    return info


def plan_lines(stages: Sequence[S], more: Callable[[S], str] = lambda stage: "") -> list[str]:
    """Return a line for each stage; `more` adds what only some models have."""
    lines = []
    for stage in stages:
        lengths = ", ".join(
            f"{mix.frames} frames" + (f" x{mix.weight:g}" if len(stage.data) > 1 else "")
            for mix in stage.data
        )
        lines.append(
            f"stage {stage.name}: {stage.steps} steps of {stage.batch_size} clips, "
            f"{lengths}{more(stage)}"
        )
    return lines


def initial_lines(initial: InitialConfig | None) -> list[str]:
    """Return the plan's line of initial weights."""
    return [] if initial is None else [f"start from {initial.uri} ({initial.how})"]


def train(task: Task, config: TrainConfig[Any], output: Output) -> dict[str, Any]:
    """Train and return the summary."""
    return launch(task, config, config.stages, config.run, output, config.initial)
