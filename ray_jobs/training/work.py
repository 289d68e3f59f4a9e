"""Everything a training worker needs to know: the task, its stages, settings and places."""

from dataclasses import dataclass

from ray_jobs.training.config import RunConfig, StageConfig
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.task import Task
from ray_jobs.training.tracked_runs import Tracked


@dataclass(frozen=True)
class Work:
    """What Ray Train sends to each worker of a run."""

    task: Task
    stages: tuple[StageConfig, ...]
    run: RunConfig
    data: str
    """URI of the shards."""
    output: str
    """URI of the job's artifact."""
    initial: InitialConfig | None
    """None: random weights."""
    seed: int
    threads: int
    tracked: Tracked | None = None
    """None: `run.tracking` names no service."""

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)
