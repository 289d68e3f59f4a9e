"""Tables of inputs: rows of URI, caption and further columns in CSV, JSON lines or Parquet."""

import csv
import io
import json
import reprlib
from collections.abc import Iterator
from typing import IO, Any

from data_prep import entries, manifest_parquet
from data_prep.entries import ROW_BYTES_MAX, Entry
from infra import storage
from infra.errors import UserError, one_line
from infra.log import logger

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
_READ_BYTES = 1 << 20
"""Read of a remote table at once: little, since a read holds it several times over."""


def read(uri: str) -> Iterator[Entry]:
    """Yield the rows of a ``.jsonl``, ``.csv`` or ``.parquet`` table, a few held at a time.

    Raises:
        UserError: it is missing, empty or malformed; names the line or row.
    """
    if not storage.exists(uri):
        raise UserError(f"input {uri}: not found; give a directory of videos or a manifest")
    folder = uri.rsplit("/", 1)[0]
    entry, unsaid, first = None, 0, ""
    with storage.open_input(uri, _READ_BYTES) as file:
        for where, row in _rows(uri, file):
            value = row.get("uri")
            if not isinstance(value, str) or not value.strip():
                raise UserError(
                    f"manifest {uri}, {where}: uri is {reprlib.repr(value)}; "
                    "give a path or s3:// URI"
                )
            columns: list[str] = []
            there = f"manifest {uri}, {where}"
            entry = checked_entry(there, _resolve(value.strip(), folder), row, columns)
            if columns and not first:
                first = f"{where}, column {columns[0]}"
            unsaid += len(columns)
            yield entry
    if unsaid:
        logger.warning(
            f"manifest {uri}: {unsaid} cells hold NaN or infinite numbers, which are left out "
            f"({first} first)"
        )
    if entry is None:
        raise UserError(f"input {uri}: no rows; list at least one video in column uri")


def checked_entry(
    where: str, uri: str, row: dict[str, Any], unsaid: list[str] | None = None
) -> Entry:
    """Return the entry of a row as :func:`entries.build`; an error names `where` it stands."""
    try:
        return entries.build(uri, row, unsaid)
    except ValueError as error:
        raise UserError(f"{where}: {one_line(error)}") from None


def _rows(uri: str, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for every row of a table, a few at a time."""
    if uri.lower().endswith(".parquet"):
        yield from manifest_parquet.rows(uri, file, lambda names: _check_columns(uri, names))
        return
    text = io.TextIOWrapper(file, "utf-8-sig", newline="\n")
    try:
        yield from (_csv_rows if uri.lower().endswith(".csv") else _json_rows)(uri, text)
    except UnicodeDecodeError as error:
        raise UserError(f"manifest {uri}: not UTF-8 text: {one_line(error)}") from None
    finally:
        text.detach()


def _csv_rows(uri: str, text: io.TextIOWrapper) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(line for _, line in _lines(uri, text))
    try:
        _check_columns(uri, list(reader.fieldnames or ()))
        for number, row in enumerate(reader, 1):
            if None in row:
                raise UserError(f"manifest {uri}, row {number}: more cells than columns")
            yield f"row {number}", row
    except csv.Error as error:
        raise UserError(f"manifest {uri}, near line {reader.line_num}: {one_line(error)}") from None


def _json_rows(uri: str, text: io.TextIOWrapper) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(uri, text):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"manifest {uri}, line {number}: not JSON ({one_line(error, 80)}); "
                'write one object a line, {"uri": "…", "caption": "…"}'
            ) from None
        if not isinstance(row, dict):
            raise UserError(
                f"manifest {uri}, line {number}: holds a {type(row).__name__}; "
                'write one object a line, {"uri": "…", "caption": "…"}'
            )
        _check_columns(f"{uri}, line {number}", list(row))
        yield f"line {number}", row


def _lines(uri: str, text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    number = 0
    while line := text.readline(ROW_BYTES_MAX + 1):
        number += 1
        if len(line) > ROW_BYTES_MAX:
            raise UserError(f"manifest {uri}, line {number}: longer than {ROW_BYTES_MAX} letters")
        yield number, line


def _check_columns(where: str, names: list[str]) -> None:
    if "uri" not in names:
        there = ", ".join(map(str, names)) or "none"
        raise UserError(f"manifest {where}: no column uri (found: {there}); name it uri")


def _resolve(uri: str, folder: str) -> str:
    """Return `uri` made absolute; one of an unknown scheme stays, and is quarantined later."""
    if "://" in uri and not uri.startswith("file://"):
        return uri
    below = uri if uri.startswith(("/", "~", "file://")) else f"{folder}/{uri}"
    return storage.absolute(below)
