"""prepare: videos in, clip table out: cut into shots, scored, filtered, every input accounted for.

One row is one video from the inputs to the table. Consecutive videos that take about ten minutes of
CPU are a part: a worker analyses them and writes the part's file of the table, ``clips/…``. A rerun
goes on with the parts that are not there. At the end, parts that hold copies of videos are written
again without their clips.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field

from data_prep import filters, manifest
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.projection import ProjectionConfig
from data_prep.transnet import TransnetConfig
from data_prep.transnet import check as check_transnet
from infra import config as configs
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig, Section
from infra.job import Job, main
from ray_jobs import unit_tables, units
from ray_jobs.clip_tables import check_accounts
from ray_jobs.metrics import Prepared
from ray_jobs.preparation import corpus_projection, duplicates, planning
from ray_jobs.preparation.part_analysis import Analyse, PartAnalysis
from ray_jobs.units import Factory, Parts, Receipt

NAMES_SHOWN = 3
FOLDER = "clips"


class PrepareConfig(JobConfig):
    """Keys of ``python -m ray_jobs.prepare``."""

    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "projection")

    analysis: AnalysisConfig = Field(default_factory=AnalysisConfig)
    """How videos are cut and which clips are kept."""
    projection: ProjectionConfig = ProjectionConfig()
    """The sample by which a dry run says what the work will take."""


def plan(config: PrepareConfig) -> list[str]:
    """Return what would be done; lists the inputs and opens none of the videos."""
    counts, first, known, size_bytes = manifest.Counts(), [], 0, 0
    for batch in manifest.stream(
        config.input, counts, open_archives=False, leave_out=config.output
    ):
        first += batch["uri"].slice(0, NAMES_SHOWN - len(first)).to_pylist()
        sizes = [size for size in batch["size_bytes"].to_pylist() if size is not None]
        known, size_bytes = known + len(sizes), size_bytes + sum(sizes)
    if transnet := isinstance(config.analysis.scenes.detector, TransnetConfig):
        check_transnet()
    what = "videos and archives" if counts.archives else "videos"
    more = f" and {counts.inputs - len(first)} more" if counts.inputs > len(first) else ""
    each = config.resources
    return [
        f"inputs: {counts.inputs} {what}, {size_bytes / 1e6:.1f} MB ({known} sizes known)",
        f"first: {', '.join(map(storage.name, first))}{more}",
        *counts.notes,
        f"cuts: {_keys(config.analysis.scenes.detector)}",
        *([f"stitching: {_keys(stitch)}"] if (stitch := config.analysis.scenes.stitch) else []),
        *filters.describe(config.analysis.filters),
        f"decode: {' then '.join(config.analysis.decode.decoders)}, given up after "
        f"{config.analysis.decode.stall_s:g} s without progress",
        f"parts: of up to {planning.PART_S} s of CPU, smaller where there are few; "
        f"{each.cpus_per_worker:g} CPUs each"
        + (f", {each.gpus_per_worker:g} GPUs, in {each.workers} actors" if transnet else ""),
    ]


def _keys(section: Section) -> str:
    return ", ".join(
        str(value) if key == "kind" else f"{key} {value}"
        for key, value in configs.as_tree(section).items()
    )


def run(config: PrepareConfig, output: Output) -> dict[str, Any]:
    """Plan the parts, analyse those that are not there yet and merge them; return the summary."""
    planned = plan_parts(config, output)
    analyse_parts(config, output, planned)
    return merge(config, output, planned)


def plan_parts(config: PrepareConfig, output: Output) -> unit_tables.Plan:
    """Cut the inputs into parts, unless that is done already."""
    return planning.plan_parts(config.input, output.uri, config.projection.videos, config.seed)


def analyse_parts(
    config: PrepareConfig, output: Output, planned: unit_tables.Plan, analyse: Analyse = analyse
) -> None:
    """Write the file of every part that is not there yet.

    Args:
        config: of the job.
        output: of the job.
        planned: which parts there are.
        analyse: makes a video's row.
    """
    parts = Parts(output.uri, FOLDER, planned.parts)
    metrics = Prepared(output.uri)
    for receipt in units.run(
        parts,
        _factory(config, parts, output.path(planning.UNITS), analyse),
        config.resources,
        actors=isinstance(config.analysis.scenes.detector, TransnetConfig),
        note=_note(),
    ):
        if "accounts" in receipt:
            metrics.add(receipt["accounts"])


def merge(config: PrepareConfig, output: Output, planned: unit_tables.Plan) -> dict[str, Any]:
    """Look for copies among all videos, once every part is there; return the summary."""
    parts, units_uri = Parts(output.uri, FOLDER, planned.parts), output.path(planning.UNITS)
    sampled = corpus_projection.measure_sample(parts, units_uri, planned.facts["sample"])
    summary = duplicates.resolve(parts, planned.units, config.resources)
    check_accounts(summary, planned.units)
    return {**summary, **corpus_projection.compare(sampled, summary, parts, config.seed)}


def project(config: PrepareConfig) -> list[str]:
    """Analyse a sample of the videos here, and return what all of them will take."""
    return corpus_projection.project(
        config.input, config.analysis, config.projection, config.resources, config.seed
    )


def _factory(config: PrepareConfig, parts: Parts, units_uri: str, analyse: Analyse) -> Factory:
    network = isinstance(config.analysis.scenes.detector, TransnetConfig)
    threads = max(1, int(config.resources.cpus_per_worker)) if network else None
    arguments = {"config": config.analysis, "threads": threads, "analyse": analyse}
    return Factory(PartAnalysis, {"parts": parts, "units_uri": units_uri, **arguments})


def _note() -> Callable[[Receipt], str]:
    """Return what sums receipts up for people."""
    counts, seconds = Counter[str](), 0.0

    def note(receipt: Receipt) -> str:
        nonlocal seconds
        accounts = receipt.get("accounts", {})
        seconds += accounts.get("source_seconds", 0.0)
        counts["videos"] += accounts.get("inputs", 0)
        counts["kept"] += accounts.get("kept", 0)
        for status in ("filtered", "quarantined"):
            counts[status] += sum(accounts.get(status, {}).values())
        said = ", ".join(f"{number} {what}" for what, number in counts.items())
        return f"{seconds:.0f} s of film; {said}"

    return note


JOB = Job("prepare", "clips", PrepareConfig, plan, run, project)

if __name__ == "__main__":
    main(JOB)
