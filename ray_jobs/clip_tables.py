"""Clip tables as jobs see them: their files, accounts and thresholds."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.filters import FiltersConfig
from data_prep.filters.duration import CUTTING
from data_prep.schemas import CLIPS_VERSION
from data_prep.selection import SCORES
from infra import artifact, storage
from infra import config as configs
from infra.config import Section
from infra.errors import UserError
from ray_jobs import units
from ray_jobs.units import Parts

FOLDER = "clips"
"""Of an artifact, where its clip table is."""
_SUMS = (
    *("inputs", "kept", "filtered", "quarantined", "clips", "clips_filtered"),
    *("images", "animated_images"),
)
_COUNTED = ["status", "reason", "media", "frames", "duration_s", "cpu_seconds", "peak_rss_bytes"]
"""What `tally` reads of a row beside its clips."""


def tally(row: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of a single row of the clip table."""
    clips = Counter(clip["reason"] for clip in row["clips"])
    kept = clips.pop(None, 0)
    return {
        "inputs": 1,
        "kept": int(row["status"] == "kept"),
        "filtered": {row["reason"]: 1} if row["status"] == "filtered" else {},
        "quarantined": {row["reason"]: 1} if row["status"] == "quarantined" else {},
        "clips": kept,
        "images": int(row["media"] == "image"),
        # Of these the first frame is used.
        "animated_images": int(row["media"] == "image" and (row["frames"] or 1) > 1),
        "clips_filtered": dict(clips),
        # A container that cannot be read may claim any length.
        "source_seconds": (row["duration_s"] or 0.0) * (row["status"] != "quarantined"),
        "cpu_seconds": row["cpu_seconds"],
        "peak_rss_bytes": row["peak_rss_bytes"],
    }


def tallies(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the summary of each row of some; thumbnails and the like are not looked at."""
    clips = rows.column("clips")
    reasons = iter(clips.flatten().field("reason").to_pylist())
    return [
        tally({**row, "clips": [{"reason": next(reasons)} for _ in range(count)]})
        for row, count in zip(
            rows.select(_COUNTED).to_pylist(), clips.value_lengths().to_pylist(), strict=True
        )
    ]


def add_up(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of all rows from the summaries of some."""
    total: dict[str, Any] = {}
    for key in _SUMS:
        values = [part[key] for part in parts]
        if key.endswith(("filtered", "quarantined")):
            counts = sum((Counter(value) for value in values), Counter[str]())
            total[key] = dict(sorted(counts.items()))
        else:
            total[key] = sum(values)
    for key in ("source_seconds", "cpu_seconds"):
        total[key] = round(sum(part[key] for part in parts), 3)
    total["peak_rss_bytes"] = max(part["peak_rss_bytes"] for part in parts)
    return total


def check_accounts(summary: dict[str, Any], inputs: int) -> None:
    """Assert that every input is in the table once, as kept, filtered or quarantined."""
    out = summary["kept"] + sum(summary["filtered"].values()) + sum(summary["quarantined"].values())
    assert summary["inputs"] == out == inputs, (
        f"{inputs} inputs, {summary['inputs']} rows, {out} accounted for"
    )


def filters_of(uri: str) -> dict[str, Any]:
    """Return the thresholds by which the clips of a finished table were judged.

    `select` resolves them from its input's and states them in its summary; `prepare` has them in
    its config.
    """
    summary = artifact.summary(uri)
    if "filters" in summary:
        return artifact.summary(uri, filters=dict)["filters"]
    made_with = configs.read_yaml(file := storage.join(uri, "config.yaml"))
    analysis = made_with.get("analysis")
    if not isinstance(analysis, dict) or not isinstance(analysis.get("filters"), dict):
        raise UserError(f"{file}: has no analysis.filters; expected the config of a clip table")
    return analysis["filters"]


class _Stated(Section):
    filters: FiltersConfig


def resolve(inputs: Sequence[str], stated: dict[str, Any]) -> FiltersConfig:
    """Return the thresholds of a finished clip table with those that are stated put over them.

    Args:
        inputs: of a job; exactly one.
        stated: a tree of what is to change.

    Raises:
        UserError: the input is no finished clip table, a key or value is not allowed, or a
            change would move where clips begin and end.
    """
    if len(inputs) != 1:
        raise UserError(f"input: {len(inputs)} URIs; allowed is one artifact of kind clips")
    artifact.read(inputs[0], ("clips",))
    tree = filters_of(inputs[0])
    before = configs.build(_Stated, {"filters": tree}).filters
    after = configs.build(_Stated, {"filters": configs.merge(tree, stated)}).filters
    for key in CUTTING:
        was, now = getattr(before.duration, key), getattr(after.duration, key)
        if was != now:
            raise UserError(
                f"filters.duration.{key}: {now} cuts other clips than the input's {was}, which "
                "takes decoding; run prepare"
            )
    return after


def changes(uri: str, filters: FiltersConfig) -> list[str]:
    """Return one line a threshold, for people, with what it was in the table at `uri`."""
    before = dict(_leaves(filters_of(uri)))
    lines = []
    for key, value in _leaves(configs.as_tree(filters)):
        changed = f" (input: {before.get(key)})" if before.get(key) != value else ""
        lines.append(f"filters.{key}: {value}{changed}")
    return lines


def parts_of(uri: str) -> Parts:
    """Return the files of a finished table, which are those of the parts of the job that made it.

    Raises:
        UserError: one is not there, or the table is of another version or has not all scores.
    """
    count = sum(1 for _ in artifact.files(uri, FOLDER))
    parts = Parts(uri, FOLDER, count, unit="files")
    gone = np.flatnonzero(~units.done(parts))
    if len(gone) or not count:
        missing = parts.uri(int(gone[0])) if len(gone) else uri
        raise UserError(f"{missing}: a file of the clip table is not there")
    _check_schema(parts.uri(0))
    return parts


def _check_schema(file: str) -> None:
    with storage.open_input(file) as source:
        schema = pq.read_schema(source)
    version = (schema.metadata or {}).get(b"longtake.version", b"").decode()
    if version != CLIPS_VERSION:
        raise UserError(
            f"{file}: a clip table of version {version or 'unknown'}; readable is {CLIPS_VERSION}; "
            "run prepare again"
        )
    clips = schema.field("clips").type.value_type
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
