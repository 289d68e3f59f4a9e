"""select: a finished clip table in, the same clips under other thresholds out; nothing is decoded.

input: a finished artifact of kind `clips`, of `prepare` or of `select`. Thresholds that are not
stated stay as they are in the input. The summary says what each filter costs.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import Field

from data_prep.filters import FiltersConfig
from data_prep.filters.duration import CUTTING
from data_prep.selection import SCORES, reselect
from infra import artifact, storage
from infra import config as configs
from infra.artifact import Output
from infra.config import JobConfig, Section
from infra.errors import UserError
from infra.job import Job, main
from infra.progress import Progress, say
from ray_jobs.clip_tables import add_up, check_accounts, filters_of, tally
from ray_jobs.parts import ROW_GROUP_BYTES

ROWS_AT_ONCE = 64
_COUNTED = ["status", "reason", "duration_s", "cpu_seconds", "peak_rss_bytes"]
Against = Counter[tuple[str, ...]]
"""Clips by all the reasons against them."""


class SelectConfig(JobConfig):
    """Keys of ``python -m ray_jobs.select``."""

    filters: dict[str, Any] = Field(default={})
    """Thresholds to change, such as filters.motion.min_score=1: any below `analysis.filters` of
    `prepare` but those that cut clips. The others stay as in the input."""


class _Stated(Section):
    filters: FiltersConfig


def resolve(config: SelectConfig) -> FiltersConfig:
    """Return the thresholds of the input with those that the config states put over them.

    Raises:
        UserError: the input is no finished clip table, a key or value is not allowed, or a
            change would move where clips begin and end.
    """
    if len(config.input) != 1:
        raise UserError(f"input: {len(config.input)} URIs; allowed is one artifact of kind clips")
    artifact.read(config.input[0], ("clips",))
    tree = filters_of(config.input[0])
    before = configs.build(_Stated, {"filters": tree}).filters
    after = configs.build(_Stated, {"filters": configs.merge(tree, config.filters)}).filters
    for key in CUTTING:
        was, now = getattr(before.duration, key), getattr(after.duration, key)
        if was != now:
            raise UserError(
                f"filters.duration.{key}: {now} cuts other clips than the input's {was}, which "
                "takes decoding; run prepare"
            )
    return after


def plan(config: SelectConfig) -> list[str]:
    """Return what would be done; reads the input's summary and the schema of its first file."""
    filters = resolve(config)
    files = _files(config)
    _check_scores(files[0])
    counts = artifact.read(config.input[0]).counts
    before = dict(_leaves(filters_of(config.input[0])))
    lines = [
        f"input: {counts['inputs']} videos in {len(files)} files, {counts['clips']} clips kept"
    ]
    for key, value in _leaves(configs.as_tree(filters)):
        changed = f" (input: {before.get(key)})" if before.get(key) != value else ""
        lines.append(f"filters.{key}: {value}{changed}")
    return [*lines, "tasks: one a file, nothing is decoded"]


def run(config: SelectConfig, output: Output) -> dict[str, Any]:
    """Judge every clip anew, each file by one task, and return the summary."""
    filters = resolve(config)
    select = ray.remote(num_cpus=config.resources.cpus_per_worker)(select_file)
    tasks = [
        select.remote(file, output.path("clips", storage.name(file)), filters)
        for file in _files(config)
    ]
    parts = []
    with Progress(len(tasks), "select", "files") as progress:
        for task in tasks:
            parts.append(ray.get(task))
            progress.advance()
    summary = add_up([accounts for accounts, _ in parts])
    check_accounts(summary, artifact.read(config.input[0]).counts["inputs"])
    report = threshold_report(sum((against for _, against in parts), Against()))
    for line in _table(report):
        say(line)
    return {**summary, "filters": configs.as_tree(filters), "thresholds": report}


def select_file(source: str, target: str, filters: FiltersConfig) -> tuple[dict[str, Any], Against]:
    """Write one file of the table under `filters`; return its accounts and what is against clips.

    Args:
        source: a file of the input's table.
        target: the file to write.
        filters: the thresholds.
    """
    accounts, against = [], Against()
    with storage.open_input(source) as file, storage.open_output(target) as out:
        table = pq.ParquetFile(file)
        with pq.ParquetWriter(out, table.schema_arrow, compression="zstd") as writer:
            group: list[pa.RecordBatch] = []
            size_bytes = 0
            for batch in table.iter_batches(ROWS_AT_ONCE):
                rows, reasons = reselect(batch, filters)
                accounts += _accounts(rows)
                against.update(reasons)
                group.append(rows)
                size_bytes += rows.nbytes
                if size_bytes >= ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group))
                    group, size_bytes = [], 0
            if group:
                writer.write_table(pa.Table.from_batches(group))
    return add_up(accounts), against


def threshold_report(against: Against) -> dict[str, Any]:
    """Return what each filter costs, from the clips by all the reasons against them.

    Returns:
        ``clips`` that were judged, ``kept`` under all filters together, and for each reason that
        rejects any: ``alone``, the clips it rejects with all other filters off; ``only``, those
        that would be kept if just this filter were off.
    """
    alone = Counter[str]()
    for reasons, count in against.items():
        alone.update(dict.fromkeys(reasons, count))
    return {
        "clips": against.total(),
        "kept": against[()],
        "reasons": {
            reason: {"alone": count, "only": against[(reason,)]}
            for reason, count in sorted(alone.items(), key=lambda item: (-item[1], item[0]))
        },
    }


def _table(report: dict[str, Any]) -> list[str]:
    rows = [("rejected for", "alone", "only it")]
    rows += [(r, f"{n['alone']:,}", f"{n['only']:,}") for r, n in report["reasons"].items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"  {r:<{widths[0]}}  {a:>{widths[1]}}  {o:>{widths[2]}}" for r, a, o in rows]
    kept = f"select: {report['kept']:,} of {report['clips']:,} clips kept"
    return [kept, *lines] if report["reasons"] else [kept]


def _accounts(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    clips = rows.column("clips")
    reasons = iter(clips.flatten().field("reason").to_pylist())
    return [
        tally({**row, "clips": [{"reason": next(reasons)} for _ in range(count)]})
        for row, count in zip(
            rows.select(_COUNTED).to_pylist(), clips.value_lengths().to_pylist(), strict=True
        )
    ]


def _files(config: SelectConfig) -> list[str]:
    """Return the files of the input's table, as its marker names them."""
    uri = config.input[0]
    paths = [file["path"] for file in artifact.read(uri).files]
    files = [storage.join(uri, path) for path in paths if path.startswith("clips/")]
    gone = set(files).difference(storage.list_files(storage.join(uri, "clips")))
    if gone or not files:
        raise UserError(f"{min(gone, default=uri)}: a file of the clip table is not there")
    return files


def _check_scores(file: str) -> None:
    with storage.open_input(file) as source:
        clips = pq.read_schema(source).field("clips").type.value_type
    stored = {field.name for field in clips.field("scores").type}
    if missing := [name for name in SCORES if name not in stored]:
        raise UserError(
            f"{file}: has no score {', '.join(missing)}: made by an earlier version; "
            "run prepare again"
        )


def _leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


JOB = Job(name="select", kind="clips", config=SelectConfig, plan=plan, run=run)

if __name__ == "__main__":
    main(JOB)
