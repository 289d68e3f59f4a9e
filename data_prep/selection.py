"""Rows of a clip table under other thresholds, from the scores that are stored in them."""

from collections.abc import Container, Iterator
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa

from data_prep import filters
from data_prep.filters import FiltersConfig
from data_prep.types import Scores

NEAR_DUPLICATE = "near_duplicate"
"""The reason against a clip that looks like an earlier one; it comes after those of all filters."""
SCORES = tuple(each.score.name for each in filters.SCORED)
"""The scores that every clip of a table must have."""


def reselect(
    rows: pa.RecordBatch, config: FiltersConfig, copies: Container[int] = ()
) -> tuple[pa.RecordBatch, list[tuple[str, ...]]]:
    """Judge every clip anew, and every video by its clips.

    Ids, spans, scores and thumbnails stay as they are, and so do rows without clips: those that
    are quarantined or duplicates.

    Args:
        rows: of a clip table.
        config: the thresholds.
        copies: places among the rows' clips of those that are near-duplicates.

    Returns:
        The rows, and all reasons against each of their clips in order.
    """
    clips = rows.column("clips")
    flat = clips.flatten()
    against = judge(flat, config)
    for place, reasons in enumerate(against):
        if place in copies:
            against[place] = (*reasons, NEAR_DUPLICATE)
    verdicts = [next(iter(reasons), None) for reasons in against]
    statuses, reasons = rows.column("status").to_pylist(), rows.column("reason").to_pylist()
    starts = [0, *accumulate(clips.value_lengths().to_pylist())]
    for row, (first, end) in enumerate(pairwise(starts)):
        if first < end:
            reasons[row] = filters.verdict_on_video(verdicts[first:end])
            statuses[row] = _status(reasons[row])
    judged = _replace(flat, {"status": [_status(v) for v in verdicts], "reason": verdicts})
    new = {
        "status": pa.array(statuses, pa.string()),
        "reason": pa.array(reasons, pa.string()),
        "clips": pa.ListArray.from_arrays(pa.array(starts, pa.int32()), judged, type=clips.type),
    }
    columns = [new.get(name, rows.column(name)) for name in rows.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema), against


def judge(clips: pa.StructArray, config: FiltersConfig) -> list[tuple[str, ...]]:
    """Return all reasons of the thresholds against each clip; of its fields `scores` is read."""
    return [filters.reasons(scores, config) for scores in _scores(clips.field("scores"))]


def with_scores(rows: pa.RecordBatch, found: dict[str, dict[str, float]]) -> pa.RecordBatch:
    """Return the rows with scores put in place of those that clips had.

    Args:
        rows: of a clip table.
        found: scores by their names, by clip_id; what is not there stays as it is.
    """
    clips = rows.column("clips")
    flat = clips.flatten()
    ids = flat.field("clip_id").to_pylist()
    stored = flat.field("scores").to_pylist()
    scores = [{**old, **found.get(clip_id, {})} for clip_id, old in zip(ids, stored, strict=True)]
    starts = pa.array([0, *accumulate(clips.value_lengths().to_pylist())], pa.int32())
    lists = pa.ListArray.from_arrays(starts, _replace(flat, {"scores": scores}), type=clips.type)
    columns = [lists if name == "clips" else rows.column(name) for name in rows.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def hashes(clips: pa.StructArray, config: FiltersConfig | None) -> tuple[list[int], list[int]]:
    """Return which clips are to be compared with others, by place, and their perceptual hashes.

    Those are the clips that the thresholds keep and that have a hash.

    Args:
        clips: of a table.
        config: the thresholds; None takes the verdicts that the clips have, and then those that
            are near-duplicates count as well, as they do within one selection.
    """
    if config is None:
        reasons = clips.field("reason").to_pylist()
        wanted = [reason in (None, NEAR_DUPLICATE) for reason in reasons]
    else:
        wanted = [not reasons for reasons in judge(clips, config)]
    found = [
        (place, int(text, 16))
        for place, (text, is_wanted) in enumerate(
            zip(clips.field("phash").to_pylist(), wanted, strict=True)
        )
        if is_wanted and text is not None
    ]
    return [place for place, _ in found], [value for _, value in found]


def _scores(stored: pa.StructArray) -> Iterator[Scores]:
    columns = [stored.field(name).to_pylist() for name in SCORES]
    return (dict(zip(SCORES, values, strict=True)) for values in zip(*columns, strict=True))


def _status(reason: str | None) -> str:
    return "kept" if reason is None else "filtered"


def _replace(clips: pa.StructArray, new: dict[str, list[Any]]) -> pa.StructArray:
    kinds = list(clips.type)
    columns = [
        pa.array(new[kind.name], kind.type) if kind.name in new else clips.field(kind.name)
        for kind in kinds
    ]
    return pa.StructArray.from_arrays(columns, fields=kinds)
