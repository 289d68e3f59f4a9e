"""score: a finished clip table in, the same clips with scores of models out.

input: a finished artifact of kind `clips`. A few frames of each kept clip are decoded once for all
models; each model is a stage with actors of its own, off until one of its keys is stated. Then all
clips are judged anew, as by `select`; near-duplicates stay what they are.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from pydantic import Field

from data_prep import selection
from data_prep.decode_process import DecodeLimits
from data_prep.filters import FiltersConfig
from infra import artifact, storage
from infra import config as configs
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from infra.log import logger
from infra.progress import Progress
from ray_jobs import clip_tables
from ray_jobs.clip_tables import Against
from ray_jobs.scoring.config import StagesConfig
from ray_jobs.scoring.rows import clips_in_a_row
from ray_jobs.scoring.stages import ACTORS, commit, decode

ROWS_AT_ONCE = 4
"""Rows that a stage is given together, so that frames of several videos fill its batches."""

MOST_BLOCKS = 1000


class ScoreConfig(JobConfig):
    """Keys of ``python -m ray_jobs.score``."""

    stages: StagesConfig = Field(default_factory=StagesConfig)
    """The models to ask; state at least one."""
    frames_per_clip: Annotated[int, Field(ge=1, le=16)] = 3
    """Frames that the models see of a clip, evenly spaced."""
    long_side_px: Annotated[int, Field(ge=64, le=1024)] = 640
    """Frames are scaled down to at most this."""
    decode: DecodeLimits = Field(default_factory=DecodeLimits)
    """What reading one video may cost."""
    filters: dict[str, Any] = Field(default={})
    """Thresholds to change, such as filters.safety.max_unsafe=0.3; as of `select`."""


def plan(config: ScoreConfig) -> list[str]:
    """Return what would be done; see :class:`infra.job.Job`."""
    filters = clip_tables.resolve(config.input, config.filters)
    clip_tables.files_of(config.input[0])
    if not config.stages.on:
        raise UserError(
            "stages: none stated; give at least one of stages.safety={} stages.text={} "
            "stages.clip.weights=…"
        )
    config.stages.check()
    counts = artifact.read(config.input[0]).counts
    return [
        f"input: {counts['clips']} kept clips of {counts['inputs']} videos",
        f"decode: {config.frames_per_clip} frames a clip, long side at most "
        f"{config.long_side_px} px, {config.resources.cpus_per_worker:g} CPUs a task",
        *(
            f"stage {name}: {s.workers} actors of {s.num_cpus:g} CPUs, {s.num_gpus:g} GPUs"
            for name, s in config.stages.on.items()
        ),
        *clip_tables.changes(config.input[0], filters),
    ]


def run(config: ScoreConfig, output: Output) -> dict[str, Any]:
    """Score what is not scored yet, then write the table; return the summary."""
    filters = clip_tables.resolve(config.input, config.filters)
    files = clip_tables.files_of(config.input[0])
    weights = config.stages.weights()
    _score_all(config, files, output)
    task: Any = ray.remote(num_cpus=config.resources.cpus_per_worker)(score_file)
    size = clips_in_a_row(config.frames_per_clip, config.long_side_px)
    parts = ray.get(
        [
            task.remote(
                file,
                output.path("clips", storage.name(file)),
                output.path("scored"),
                size,
                filters,
                weights,
            )
            for file in files
        ]
    )
    summary = clip_tables.add_up([accounts for accounts, _, _ in parts])
    clip_tables.check_accounts(summary, artifact.read(config.input[0]).counts["inputs"])
    report = clip_tables.threshold_report(sum((against for _, against, _ in parts), Against()))
    for line in clip_tables.report_lines("score", report):
        logger.info(line)
    storage.remove(output.path("scored"))
    return {
        **summary,
        "unreadable_clips": sum(failed for _, _, failed in parts),
        "filters": configs.as_tree(filters),
        "thresholds": report,
        "weights": weights,
    }


def _score_all(config: ScoreConfig, files: list[str], output: Output) -> None:
    folder = output.path("scored")
    storage.make_dirs(folder)
    there = {storage.name(uri).removesuffix(".json") for uri in storage.list_files(folder)}
    size = clips_in_a_row(config.frames_per_clip, config.long_side_px)
    units = [unit for file in files for unit in units_of(file, size)]
    total = sum(len(row["clips"]) for unit in units for row in unit["rows"])
    for unit in units:
        unit["rows"] = [row for row in unit["rows"] if row["name"] not in there]
    units = [unit for unit in units if unit["rows"]]
    todo = sum(len(row["clips"]) for unit in units for row in unit["rows"])
    if todo < total:
        logger.info(f"score: {total - todo} clips were scored by an earlier run")
    if not units:
        return
    needed = config.resources.cpus_per_worker + sum(
        stage.workers * stage.num_cpus for stage in config.stages.on.values()
    )
    if needed > ray.cluster_resources().get("CPU", 0):
        logger.warning(
            f"score: waits until the cluster has {needed:g} CPUs; lower workers or num_cpus"
        )
    rows = [{"unit": json.dumps(unit)} for unit in units]
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
        decode,  # pyright: ignore[reportArgumentType] (fn_kwargs fills the rest)
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={
            "frames_per_clip": config.frames_per_clip,
            "long_side_px": config.long_side_px,
            "limits": config.decode,
        },
        num_cpus=config.resources.cpus_per_worker,
    )
    for name, stage in config.stages.on.items():
        data = data.map_batches(
            ACTORS[name],
            batch_size=ROWS_AT_ONCE,
            batch_format="pyarrow",
            fn_constructor_args=(stage,),
            compute=ray.data.ActorPoolStrategy(size=stage.workers),
            num_cpus=stage.num_cpus,
            num_gpus=stage.num_gpus or None,
        )
    receipts = data.map_batches(
        commit,  # pyright: ignore[reportArgumentType] (fn_args fills the rest)
        batch_size=ROWS_AT_ONCE,
        batch_format="pyarrow",
        fn_args=(folder,),
        num_cpus=0.01,
    )
    failed = 0
    with Progress(total, "score", "clips", done=total - todo) as progress:
        for receipt in receipts.iter_rows():
            failed += receipt["failed"]
            progress.advance(receipt["clips"], f"{failed} unreadable")


def units_of(file: str, size: int) -> Iterator[dict[str, Any]]:
    """Yield for each video of a file that has kept clips its uri and its rows of `size` clips."""
    wanted = ("clip_id", "start_s", "end_s", "status")
    columns = ["source_id", "uri", "caption", *(f"clips.list.element.{name}" for name in wanted)]
    with storage.open_input(file) as source:
        for batch in pq.ParquetFile(source).iter_batches(1024, columns=columns):
            for video in batch.to_pylist():
                clips = [
                    {key: clip[key] for key in wanted[:3]}
                    for clip in video["clips"]
                    if clip["status"] == "kept"
                ]
                if clips:
                    whole = {"uri": video["uri"], "caption": video["caption"]}
                    rows = [
                        {"name": name, **whole, "clips": clips[at : at + size]}
                        for at, name in enumerate_rows(video["source_id"], len(clips), size)
                    ]
                    yield {"uri": video["uri"], "rows": rows}


def enumerate_rows(source_id: str, clips: int, size: int) -> Iterator[tuple[int, str]]:
    """Yield for each row of a video with that many kept clips its first clip and its name."""
    for at in range(0, clips, size):
        yield at, f"{source_id}-{at // size:05d}"


def score_file(
    source: str,
    target: str,
    folder: str,
    size: int,
    filters: FiltersConfig,
    weights: dict[str, str],
) -> tuple[dict[str, Any], Against, int]:
    """Write one file of the table with scores and verdicts.

    Args:
        source: a file of the input's table.
        target: the file to write.
        folder: where the scores of each row are.
        size: clips in a row.
        filters: the thresholds.
        weights: to add to the schema's metadata.

    Returns:
        The file's accounts, what is against its clips, and how many could not be read.
    """
    failed = 0

    def judge(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, list[tuple[str, ...]]]:
        nonlocal failed
        clips = rows.column("clips")
        flat = clips.flatten()
        statuses, reasons = flat.field("status").to_pylist(), flat.field("reason").to_pylist()
        found: dict[str, dict[str, float]] = {}
        before = 0
        lengths = clips.value_lengths().to_pylist()
        for source_id, length in zip(rows.column("source_id").to_pylist(), lengths, strict=True):
            kept = statuses[before : before + length].count("kept")
            before += length
            for _, name in enumerate_rows(source_id, kept, size):
                made = storage.read_json(storage.join(folder, f"{name}.json"))
                found |= made["scores"]
                failed += len(made["failed"])
        copies = {n for n, reason in enumerate(reasons) if reason == selection.NEAR_DUPLICATE}
        return selection.reselect(selection.with_scores(rows, found), filters, copies)

    accounts, against = clip_tables.rewrite(source, target, judge, weights)
    return accounts, against, failed


JOB = Job(name="score", kind="clips", config=ScoreConfig, plan=plan, run=run)

if __name__ == "__main__":
    main(JOB)
