"""Job `score`: the clips of a finished table with the scores of models.

input: a finished artifact of kind `clips`. A few frames of each kept clip are decoded once for all
models; each model has actors of its own, and is off until one of its keys is stated. Then all clips
are judged anew, as by `select`; near-duplicates stay what they are. A file of the table is a part:
a rerun scores those that are not written yet.
"""

from dataclasses import replace
from typing import Any, ClassVar

import ray
from pydantic import Field

from data_prep.decode_process import DecodeLimits
from data_prep.filters import FiltersConfig
from infra import artifact
from infra import config as configs
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from infra.log import logger
from ray_jobs import clip_tables, judgement, units
from ray_jobs.scoring.config import StagesConfig
from ray_jobs.scoring.decoding import FramesConfig
from ray_jobs.scoring.models import start_pools
from ray_jobs.scoring.part_scoring import PartScoring
from ray_jobs.units import Factory, Parts


class ScoreConfig(JobConfig):
    """Keys of ``python -m ray_jobs.score``."""

    input_keys: ClassVar[tuple[str, ...]] = ("input", "stages.clip.weights", "stages.clip.head")

    stages: StagesConfig = Field(default_factory=StagesConfig)
    """The models to ask; state at least one."""
    frames: FramesConfig = Field(default_factory=FramesConfig)
    """What the models see of a clip."""
    decode: DecodeLimits = Field(default_factory=DecodeLimits)
    """What reading one video may cost."""
    filters: dict[str, Any] = Field(default={})
    """Thresholds to change, such as filters.safety.max_unsafe=0.3; as of `select`."""


def plan(config: ScoreConfig) -> list[str]:
    """Return what would be done; see :class:`infra.job.Job`."""
    filters = clip_tables.resolve(config.input, config.filters)
    clip_tables.parts_of(config.input[0])
    if not config.stages.on:
        raise UserError(
            "stages: none stated; give at least one of stages.safety={} stages.text={} "
            "stages.clip.weights=…"
        )
    config.stages.check()
    counts = artifact.read(config.input[0]).counts
    return [
        f"input: {counts['clips']} kept clips of {counts['inputs']} videos",
        f"decode: {config.frames.per_clip} frames a clip, long side at most "
        f"{config.frames.long_side_px} px, {config.resources.cpus_per_worker:g} CPUs a task",
        *(
            f"stage {name}: {s.workers} actors of {s.num_cpus:g} CPUs, {s.num_gpus:g} GPUs"
            for name, s in config.stages.on.items()
        ),
        *clip_tables.changes(config.input[0], filters),
    ]


def run(config: ScoreConfig, output: Output) -> dict[str, Any]:
    """Score and judge every file of the table that is not written yet; return the summary."""
    filters = clip_tables.resolve(config.input, config.filters)
    table = clip_tables.parts_of(config.input[0])
    weights = config.stages.weights()
    parts = replace(table, output_uri=output.uri)
    _score_missing(config, parts, table, filters, weights)
    made = judgement.read_all(parts.uris())
    clip_tables.check_accounts(made.accounts, artifact.read(config.input[0]).counts["inputs"])
    report = judgement.threshold_report(made.against)
    for line in judgement.report_lines("score", report):
        logger.info(line)
    return {
        **made.accounts,
        "unreadable_clips": made.unreadable_clips,
        "filters": configs.as_tree(filters),
        "thresholds": report,
        "weights": weights,
    }


def _score_missing(
    config: ScoreConfig,
    parts: Parts,
    table: Parts,
    filters: FiltersConfig,
    weights: dict[str, str],
) -> None:
    if units.done(parts).all():  # no model is loaded for nothing
        return
    needed = config.resources.cpus_per_worker + sum(
        stage.workers * stage.num_cpus for stage in config.stages.on.values()
    )
    if needed > ray.cluster_resources().get("CPU", 0):
        logger.info(
            f"score: waits until the cluster has {needed:g} CPUs; lower workers or num_cpus"
        )
    arguments = {
        "parts": parts,
        "table": table,
        "frames": config.frames,
        "limits": config.decode,
        "filters": filters,
        "weights": weights,
        "pools": start_pools(config.stages),
    }
    for _ in units.run(parts, Factory(PartScoring, arguments), config.resources, actors=False):
        pass


JOB = Job(name="score", kind="clips", config=ScoreConfig, plan=plan, run=run)

if __name__ == "__main__":
    main(JOB)
