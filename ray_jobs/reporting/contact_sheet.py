"""Reads a clip table for the report in two passes, both bounded in memory.

The first pass reads everything but the thumbnails: row counts, scores, quarantined inputs. The
second reads the thumbnails of the few clips that the contact sheet shows, evenly spaced over each
group, and passes over every row group that holds none of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_prep.selection import SCORES
from data_prep.thumbnails import evenly
from infra import storage

KEPT = "kept"
_ROW = ("uri", "status", "reason", "detail")
_CLIP = ("status", "reason", *(f"scores.{name}" for name in SCORES))
_PICTURE = ("status", "reason", "start_s", "end_s", "scores", "thumbnail")


@dataclass
class ClipTable:
    """What the report says about a clip table; a group is "kept" or a reason of rejection."""

    rows: Counter[str] = field(default_factory=Counter)
    """Inputs by status."""
    row_reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Inputs by status and reason."""
    clips: Counter[str] = field(default_factory=Counter)
    """Clips by group."""
    scores: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Score name -> clip status -> float32 values (NaN where a score is missing)."""
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    """uri, reason and detail of quarantined inputs, at most `max_quarantined` of them."""
    pictures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Group -> the clips shown: uri, start_s, end_s, scores, thumbnail (JPEG bytes or None)."""


def read(uri: str, *, per_group: int, max_quarantined: int = 200) -> ClipTable:
    """Read the clip table of a "clips" artifact.

    Args:
        uri: The artifact.
        per_group: Most thumbnails of a group; evenly spaced over the group when it has more.
        max_quarantined: Most quarantined inputs to list.
    """
    files = storage.list_files(storage.join(uri, "clips"), (".parquet",))
    table = ClipTable()
    sizes: list[list[Counter[str]]] = []  # clips by group, of each row group of each file
    columns = [*_ROW, *(f"clips.list.element.{name}" for name in _CLIP)]
    values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in SCORES}
    for file in files:
        sizes.append([])
        for rows in _row_groups(file, columns):
            sizes[-1].append(_count(rows, table, values, max_quarantined))
    table.scores = {
        name: {status: np.asarray(v, dtype=np.float32) for status, v in by_status.items()}
        for name, by_status in values.items()
    }
    _pick(files, sizes, table, per_group)
    return table


def _count(
    rows: list[dict[str, Any]],
    table: ClipTable,
    values: dict[str, dict[str, list[float]]],
    max_quarantined: int,
) -> Counter[str]:
    here: Counter[str] = Counter()
    for row in rows:
        table.rows[row["status"]] += 1
        if row["status"] != KEPT:
            table.row_reasons[row["status"]][row["reason"] or "unknown"] += 1
        if row["status"] == "quarantined" and len(table.quarantined) < max_quarantined:
            table.quarantined.append({name: row[name] for name in ("uri", "reason", "detail")})
        for clip in row["clips"] or ():
            here[_group(clip)] += 1
            for name in SCORES:
                score = (clip["scores"] or {}).get(name)
                values[name][clip["status"]].append(float("nan") if score is None else score)
    table.clips.update(here)
    return here


def _pick(
    files: list[str], sizes: list[list[Counter[str]]], table: ClipTable, per_group: int
) -> None:
    wanted = {group: set(evenly(n, per_group)) for group, n in table.clips.items()}
    table.pictures = {group: [] for group in wanted}
    seen: Counter[str] = Counter()
    columns = ["uri", *(f"clips.list.element.{name}" for name in _PICTURE)]
    for file, groups in zip(files, sizes, strict=True):
        take = []
        before = seen.copy()
        for index, size in enumerate(groups):
            spans = {group: range(seen[group], seen[group] + n) for group, n in size.items()}
            if any(not wanted[group].isdisjoint(span) for group, span in spans.items()):
                take.append(index)
            seen.update(size)
        at = before
        for index in range(len(groups)):
            if index not in take:
                at.update(groups[index])
                continue
            for rows in _row_groups(file, columns, only=index):
                for row in rows:
                    for clip in row["clips"] or ():
                        group = _group(clip)
                        if at[group] in wanted[group]:
                            table.pictures[group].append({"uri": row["uri"], **clip})
                        at[group] += 1


def _group(clip: dict[str, Any]) -> str:
    return KEPT if clip["status"] == KEPT else clip["reason"] or "unknown"


def _row_groups(
    file: str, columns: list[str], only: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    with storage.open_input(file) as source:
        parquet = pq.ParquetFile(source)
        indices = range(parquet.num_row_groups) if only is None else (only,)
        for index in indices:
            yield parquet.read_row_group(index, columns=columns).to_pylist()
