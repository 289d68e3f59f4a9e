"""prepare: videos in, clip table out: cut into shots, scored, filtered, every input accounted for.

One row is one video from the manifest to the table. A Ray Data task analyses a video (several where
there are very many) and commits each as ``analysed/<source_id>.parquet``; a rerun goes on with what
is not there.
At the end the rows are merged, in the manifest's order, into ``clips/*.parquet``.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import Field

from data_prep import filters
from data_prep import manifest as manifests
from data_prep import projection as projections
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.projection import ProjectionConfig
from data_prep.schemas import CLIP_TABLE
from data_prep.transnet import TransnetConfig
from data_prep.transnet import check as check_transnet
from infra import config as configs
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig, Section
from infra.job import Job, main
from infra.log import logger
from infra.progress import Progress
from ray_jobs.clip_tables import add_up, check_accounts, tally
from ray_jobs.metrics import Prepared
from ray_jobs.part_files import row_groups

NAMES_SHOWN = 3
SIZES_ASKED = 10_000
MOST_TASKS = 20_000
"""Each costs the driver about 9 KB; of more videos, several share a task, one after the other."""
UNAVAILABLE = "unavailable"
"""A task's receipt when storage did not answer: the job stops, and no video is judged."""


class PrepareConfig(JobConfig):
    """Keys of ``python -m ray_jobs.prepare``."""

    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "projection")
    analysis: AnalysisConfig = Field(default_factory=AnalysisConfig)
    """How videos are cut and which clips are kept."""
    rows_per_file: Annotated[int, Field(ge=1)] = 512
    """Videos in one Parquet file of the clip table."""
    projection: ProjectionConfig = ProjectionConfig()
    """The sample by which a dry run says what the work will take."""


def plan(config: PrepareConfig) -> list[str]:
    """Return what would be done; lists the inputs and opens none of the videos."""
    manifest = manifests.read(config.input, open_archives=False)
    count = manifest.table.num_rows
    uris = manifest.table["uri"].slice(0, SIZES_ASKED).to_pylist()
    if transnet := isinstance(config.analysis.scenes.detector, TransnetConfig):
        check_transnet()
    known = [storage.size_bytes(u) for u in uris if "://" not in u and storage.exists(u)]
    what = "videos and archives" if manifest.archives else "videos"
    more = f" and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
    return [
        f"inputs: {count} {what}, {sum(known) / 1e6:.1f} MB ({len(known)} sizes known)",
        f"first: {', '.join(storage.name(u) for u in uris[:NAMES_SHOWN])}{more}",
        *manifest.notes,
        f"cuts: {_keys(config.analysis.scenes.detector)}",
        *([f"stitching: {_keys(stitch)}"] if (stitch := config.analysis.scenes.stitch) else []),
        *filters.describe(config.analysis.filters),
        f"decode: {' then '.join(config.analysis.decode.decoders)}, given up after "
        f"{config.analysis.decode.stall_s:g} s without progress",
        f"tasks: {min(count, MOST_TASKS)}, {config.resources.cpus_per_worker:g} CPUs each"
        + (
            f", {config.resources.gpus_per_worker:g} GPUs, in {config.resources.workers} actors"
            if transnet
            else ""
        ),
    ]


def _keys(section: Section) -> str:
    return ", ".join(
        str(value) if key == "kind" else f"{key} {value}"
        for key, value in configs.as_tree(section).items()
    )


def run(config: PrepareConfig, output: Output) -> dict[str, Any]:
    """Analyse every video that is not analysed yet, then merge the rows; return the summary."""
    table = _manifest(config, output)
    _analyse_all(table, config, output)
    repeats = _repeats(table, config, output)
    summary = _merge(table, repeats, config, output)
    check_accounts(summary, table.num_rows)
    foreseen = _foreseen(table, summary, config, output)
    storage.remove(output.path("analysed"))
    return {**summary, **foreseen}


def project(config: PrepareConfig) -> list[str]:
    """Analyse a sample of the videos here, and return what all of them will take."""
    table = manifests.read(config.input).table
    places = projections.sample(
        table["source_id"].to_pylist(), config.projection.videos, config.seed
    )
    if not places:
        return []
    begun_s = time.monotonic()
    sampled = []
    with Progress(len(places), "sample", "videos") as progress:
        for row in table.take(places).to_pylist():
            if sampled and time.monotonic() - begun_s > config.projection.seconds:
                break
            about = {name: row[name] for name in ("extra", "damage")}
            found = analyse(row["uri"], row["caption"], config.analysis, **about)
            sampled.append(projections.measures(found, _as_table([found]).nbytes))
            progress.advance(1)
    totals = projections.project(sampled, table.num_rows, config.seed)
    cpus, each = config.projection.cpus or os.cpu_count() or 1, config.resources
    wall = projections.wall_hours(totals["cpu_hours"], cpus, each.cpus_per_worker, table.num_rows)
    lines = [
        (name.replace("_", " ").replace("cpu", "CPU").replace("gb", "GB"), total)
        for name, total in totals.items()
    ]
    lines.append((f"wall hours on {cpus:g} CPUs", wall))
    if gpus := each.gpus_per_worker:  # a task holds its GPUs while it runs
        busy = totals["cpu_hours"]
        held = projections.Interval(busy.value * gpus, busy.low * gpus, busy.high * gpus)
        lines.append(("GPU hours", held))
    shown = f"{len(sampled)} of {table.num_rows} videos"
    return [
        f"projected from {shown}, with {projections.CONFIDENCE:.0%} intervals:",
        *(f"  {name}: {t.value:.4g} ({t.low:.4g} to {t.high:.4g})" for name, t in lines),
    ]


def _foreseen(
    table: pa.Table, summary: dict[str, Any], config: PrepareConfig, output: Output
) -> dict[str, Any]:
    """Return what the sample of a dry run says of the corpus, beside what came of it."""
    ids = table["source_id"].to_pylist()
    places = projections.sample(ids, config.projection.videos, config.seed)
    if not places:
        return {}
    rows = [_read(storage.join(output.path("analysed"), f"{ids[p]}.parquet")) for p in places]
    sampled = [projections.measures(row.to_pylist()[0], row.nbytes) for row in rows]
    files = storage.list_files(output.path("clips"), (".parquet",))
    actual = {
        "cpu_hours": summary["cpu_seconds"] / 3600,
        "source_hours": summary["source_seconds"] / 3600,
        "output_gb": sum(map(storage.size_bytes, files)) / 1e9,
        "kept_videos": summary["kept"],
        "kept_clips": summary["clips"],
    }
    totals = projections.project(sampled, len(ids), config.seed)
    return {
        "projection": {
            "videos": len(places),
            **{
                name: {
                    "projected": total.value,
                    "low": total.low,
                    "high": total.high if math.isfinite(total.high) else None,
                    "actual": actual[name],
                    "error": total.value / actual[name] - 1 if actual[name] else None,
                }
                for name, total in totals.items()
            },
        }
    }


def _manifest(config: PrepareConfig, output: Output) -> pa.Table:
    """Return the inputs as the first run of this output found them."""
    file = output.path("manifest", "part-00000.parquet")
    if storage.exists(file):
        return _read(file)
    manifest = manifests.read(config.input)
    for note in manifest.notes:
        logger.info(f"prepare: {note}")
    _write(file, manifest.table)
    return manifest.table


def _analyse_all(table: pa.Table, config: PrepareConfig, output: Output) -> None:
    folder = output.path("analysed")
    storage.make_dirs(folder)
    there = {storage.name(uri).removesuffix(".parquet") for uri in storage.list_files(folder)}
    todo = table.filter(pa.array([i.as_py() not in there for i in table["source_id"]], pa.bool_()))
    if todo.num_rows < table.num_rows:
        logger.info(
            f"prepare: {table.num_rows - todo.num_rows} videos were analysed by an earlier run"
        )
    if not todo.num_rows:
        return
    rows = ray.data.from_arrow(todo.replace_schema_metadata()).repartition(
        target_num_rows_per_block=-(-todo.num_rows // MOST_TASKS)
    )
    each: dict[str, Any] = {
        "num_cpus": config.resources.cpus_per_worker,
        "num_gpus": config.resources.gpus_per_worker or None,
    }
    if isinstance(config.analysis.scenes.detector, TransnetConfig):  # its network is kept loaded
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=config.resources.workers)
        receipts = rows.map(
            _Analyst,  # pyright: ignore[reportArgumentType] (a class, built once an actor)
            fn_constructor_args=(config, folder),
            compute=pool,
            **each,
        )
    else:
        receipts = rows.map(
            _analyse_one,  # pyright: ignore[reportArgumentType] (fn_args fills the rest)
            fn_args=(config.analysis, folder),
            **each,
        )
    seconds, counts, metrics = 0.0, Counter[str](), Prepared(output.uri)
    done = table.num_rows - todo.num_rows
    with Progress(table.num_rows, "prepare", "videos", done=done) as progress:
        for receipt in receipts.iter_rows():
            if receipt["status"] == UNAVAILABLE:
                raise storage.Unavailable(receipt["detail"])
            sums = json.loads(receipt["detail"])
            metrics.add(sums)
            seconds += sums["source_seconds"]
            counts[receipt["status"]] += 1
            said = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
            progress.advance(1, f"{seconds:.0f} s of film; {said}")


def _analyse_one(row: dict[str, Any], config: AnalysisConfig, folder: str) -> dict[str, Any]:
    """Analyse one video and commit its row; a retry writes the same file again."""
    try:
        about = {name: row[name] for name in ("extra", "damage")}
        found = analyse(row["uri"], row["caption"], config, **about)
        _write(storage.join(folder, f"{row['source_id']}.parquet"), _as_table([found]))
    except storage.Unavailable as error:
        return {"status": UNAVAILABLE, "detail": str(error)}
    return {"status": found["status"], "detail": json.dumps(tally(found))}


class _Analyst:
    def __init__(self, config: PrepareConfig, folder: str) -> None:
        import torch

        torch.set_num_threads(max(1, int(config.resources.cpus_per_worker)))
        self._config, self._folder = config.analysis, folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _analyse_one(row, self._config, self._folder)


def _repeats(table: pa.Table, config: PrepareConfig, output: Output) -> set[str]:
    """Return the source ids whose bytes came before under another name, in manifest order."""
    folder = output.path("analysed")
    ids = table["source_id"].to_pylist()
    batches = [
        ids[at : at + config.rows_per_file] for at in range(0, len(ids), config.rows_per_file)
    ]
    read = ray.remote(num_cpus=config.resources.cpus_per_worker)(_video_ids)
    seen: set[str] = set()
    repeats: set[str] = set()
    for batch, videos in zip(
        batches, ray.get([read.remote(b, folder) for b in batches]), strict=True
    ):
        for source, video in zip(batch, videos, strict=True):
            if video is not None and video in seen:
                repeats.add(source)
            elif video is not None:
                seen.add(video)
    return repeats


def _video_ids(source_ids: list[str], folder: str) -> list[str | None]:
    """Return the video id of each analysed row; None where the video cannot be read."""
    found = []
    for source in source_ids:
        row = _read(storage.join(folder, f"{source}.parquet"), ["video_id", "status"]).to_pylist()[
            0
        ]
        found.append(row["video_id"] if row["status"] != "quarantined" else None)
    return found


def _merge(
    table: pa.Table, repeats: set[str], config: PrepareConfig, output: Output
) -> dict[str, Any]:
    """Write the clip table, each file by one task, and add up its rows."""
    ids = table["source_id"].to_pylist()
    merge = ray.remote(num_cpus=config.resources.cpus_per_worker)(_merge_file)
    parts = []
    for number, at in enumerate(range(0, len(ids), config.rows_per_file)):
        batch = ids[at : at + config.rows_per_file]
        target = output.path("clips", f"part-{number:05d}.parquet")
        again = repeats.intersection(batch)
        parts.append(merge.remote(batch, again, output.path("analysed"), target))
    return add_up(ray.get(parts))


def _merge_file(
    source_ids: list[str], repeats: set[str], folder: str, target: str
) -> dict[str, Any]:
    """Write one file of the table, never holding much more than a row group; return its sums."""
    sums: list[dict[str, Any]] = []

    def rows() -> Iterator[pa.Table]:
        for source in source_ids:
            row = _read(storage.join(folder, f"{source}.parquet"))
            if source in repeats:
                row = _as_table([as_duplicate(row.to_pylist()[0])])
            sums.append(tally(row.drop_columns(["uri"]).to_pylist()[0]))
            yield row

    with (
        storage.open_output(target) as file,
        pq.ParquetWriter(file, CLIP_TABLE, compression="zstd") as writer,
    ):
        for group in row_groups(rows(), lambda row: row.nbytes):
            writer.write_table(pa.concat_tables(group))
    return add_up(sums)


def as_duplicate(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a video whose bytes are already in the table: filtered, without clips."""
    return {**row, "status": "filtered", "reason": "duplicate", "clips": []}


def _as_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=CLIP_TABLE)


def _read(uri: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open_input(uri) as file:
        return pq.ParquetFile(file).read(columns=columns)


def _write(uri: str, table: pa.Table) -> None:
    with storage.open_output(uri) as file:
        pq.write_table(table, file, compression="zstd")


JOB = Job("prepare", "clips", PrepareConfig, plan, run, project)

if __name__ == "__main__":
    main(JOB)
