"""Ranges of held-out film, from its measures, which generated videos are compared with."""

from collections.abc import Iterable, Mapping
from typing import Any

from infra import artifact
from infra.errors import UserError
from models.evaluation import likeness
from models.evaluation.likeness import Range
from ray_jobs.evaluation import measures_table
from ray_jobs.evaluation.measures_table import Record
from ray_jobs.video_table import HELD_OUT


def is_film(record: Mapping[str, Any]) -> bool:
    """Return whether a row of `measures_table` is of film, not of what a system generated."""
    return record["settings"].get("kind", HELD_OUT) == HELD_OUT


def ranges_of(uri: str) -> dict[str, Range]:
    """Return the ranges of the films of an artifact of kind `measures`.

    Raises:
        UserError: there is no such artifact, it has generated videos, or no film was measured.
    """
    artifact.read(uri, ("measures",))
    return ranges(uri, measures_table.read(uri, strips=False))


def ranges(uri: str, records: Iterable[Record]) -> dict[str, Range]:
    """Return the same of records that are at hand; see :func:`ranges_of`."""
    films = []
    for record in records:
        if not is_film(record):
            kind = record["settings"]["kind"]
            raise UserError(f"{uri}: holds videos that {kind} generated; expected is film alone")
        if record["problem"] is None and record["motion"] is not None:
            films.append({figure.name: record[figure.name] for figure in likeness.FIGURES})
    if not films:
        raise UserError(f"{uri}: no film in it could be measured")
    return likeness.ranges(films)
