"""Generate videos from prompts with the trained models of a system.

input: the finished artifacts of the models that the system needs, in any order. output:
`videos/*/*.mp4`, and `videos.parquet` with what made each of them.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from infra.artifact import Output
from infra.config import JobConfig, Resources
from infra.errors import UserError
from infra.job import Job, main
from ray_jobs import video_table
from ray_jobs.generation import stages
from ray_jobs.generation.kinds import AnySystemConfig
from ray_jobs.generation.requests import Requests
from ray_jobs.generation.stages import SharedActors, Work
from ray_jobs.generation.system import Stage, System
from ray_jobs.prompts import Prompt
from ray_jobs.video_table import Row


class GenerateConfig(JobConfig):
    """Settings of `generate`."""

    not_counted: ClassVar[tuple[str, ...]] = (
        *getattr(JobConfig, "not_counted", ()),
        "stage_resources",
    )

    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    """Each a text, or {over_time: [{text, from_s}, ...]}."""
    videos_per_prompt: Annotated[int, Field(ge=1)] = 1
    system: AnySystemConfig
    """What generates, by its `kind`."""
    stage_resources: dict[str, Resources] = Field(default_factory=dict)
    """Resources of a stage of the system, by its name; a stage without takes `resources`."""


def plan(config: GenerateConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    system = config.system.open(config.input)
    film, at_once = system.film, config.system.videos_at_once
    lines = [
        f"{requests_of(config).count} videos of {film.frames} frames, {film.width_px}x"
        f"{film.height_px} at {film.fps:g} fps{f', {at_once} at once' if at_once > 1 else ''}"
    ]
    for stage, each in zip(system.stages(), resources_of(config, system.stages()), strict=True):
        lines.append(
            f"stage {stage.name}: {each.workers} actors of {each.cpus_per_worker:g} CPUs, "
            f"{each.gpus_per_worker:g} GPUs"
        )
    return [*lines, *system.plan(config.prompts)]


def run(
    config: GenerateConfig, output: Output, actors: SharedActors | None = None
) -> dict[str, Any]:
    """Generate the videos that are missing and return the summary.

    Args:
        config: of the job.
        output: of the job.
        actors: of the same models that are there already; None starts the job's own.
    """
    system = config.system.open(config.input)
    work = work_of(config, system, output.uri)
    if actors is None:
        made = stages.run(work, system.stages(), resources_of(config, system.stages()))
    else:
        made = actors.run(work)
    for _ in made:
        pass
    seconds = 0.0

    def rows() -> Iterator[Row]:
        nonlocal seconds
        for row in work.rows():
            seconds += row["seconds"]
            yield row

    videos = video_table.write(output.uri, rows())
    frames = videos * work.film.frames
    return {
        "videos": videos,
        "frames": frames,
        "joins_per_video": len(work.film.joins),
        "frames_per_second": round(frames / max(seconds, 1e-9), 3),
    }


def start_actors(config: GenerateConfig) -> SharedActors:
    """Start actors that hold the models of a config, for several runs that differ in settings."""
    needed = config.system.open(config.input).stages()
    return SharedActors(needed, resources_of(config, needed))


def requests_of(config: GenerateConfig) -> Requests:
    """Return the videos that a config asks for."""
    at_once = config.system.videos_at_once
    return Requests(config.prompts, config.videos_per_prompt, at_once, config.seed)


def work_of(config: GenerateConfig, system: System, output_uri: str) -> Work:
    """Return what a run makes."""
    return Work(output_uri, requests_of(config), system.film, system.models, config.system)


def resources_of(config: GenerateConfig, needed: list[Stage]) -> list[Resources]:
    """Return the resources of each stage.

    Raises:
        UserError: resources are stated of a stage that the system does not have.
    """
    names = [stage.name for stage in needed]
    if unknown := set(config.stage_resources).difference(names):
        raise UserError(
            f"stage_resources.{min(unknown)}: no stage of this system; there are {', '.join(names)}"
        )
    return [config.stage_resources.get(name, config.resources) for name in names]


JOB = Job("generate", "videos", GenerateConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
