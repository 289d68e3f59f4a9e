"""Which videos to prepare: a directory of them, or a table of URIs and captions."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.analysis import source_id
from data_prep.schemas import MANIFEST
from infra import storage
from infra.errors import UserError, one_line

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts")
TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Entry:
    """One input video."""

    uri: str
    caption: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The inputs of a run in their order, each URI once."""

    entries: tuple[Entry, ...]
    repeated_uris: int
    """Entries left out since their URI came before; the first one's caption counts."""
    other_files: int
    """Files of directories left out since their names do not end like a video's."""

    @property
    def notes(self) -> list[str]:
        """Say in lines for people what was left out."""
        notes = []
        if self.repeated_uris:
            notes.append(f"{self.repeated_uris} repeated URIs left out (the first one counts)")
        if self.other_files:
            notes.append(
                f"{self.other_files} other files left out "
                f"(videos end in {' '.join(VIDEO_SUFFIXES)})"
            )
        return notes

    def table(self) -> pa.Table:
        """Return the entries as an Arrow table of schema ``MANIFEST``."""
        return pa.table(
            {
                "source_id": [source_id(entry.uri) for entry in self.entries],
                "uri": [entry.uri for entry in self.entries],
                "caption": [entry.caption for entry in self.entries],
            },
            schema=MANIFEST,
        )


def read(inputs: tuple[str, ...]) -> Manifest:
    """Read a job's inputs.

    Args:
        inputs: each a directory or prefix (searched recursively for videos), one video, or a
            ``.jsonl``, ``.csv`` or ``.parquet`` table with a column ``uri`` and perhaps
            ``caption``. A relative URI in a table is relative to the table's directory.

    Raises:
        UserError: an input is missing, empty or malformed.
    """
    entries: dict[str, Entry] = {}
    repeated = others = 0
    for uri in inputs:
        found, other = _read_one(uri)
        others += other
        for entry in found:
            if entry.uri in entries:
                repeated += 1
            else:
                entries[entry.uri] = entry
    return Manifest(tuple(entries.values()), repeated, others)


def _read_one(uri: str) -> tuple[list[Entry], int]:
    if uri.lower().endswith(TABLE_SUFFIXES) and not storage.is_dir(uri):
        if not storage.exists(uri):
            raise UserError(f"input {uri}: not found; give a directory of videos or a manifest")
        entries = list(_read_table(uri))
        if not entries:
            raise UserError(f"input {uri}: no rows; list at least one video in column uri")
        return entries, 0
    if not storage.exists(uri):
        raise UserError(f"input {uri}: not found; give a directory of videos or a manifest")
    if not storage.is_dir(uri):
        if not uri.lower().endswith(VIDEO_SUFFIXES):
            allowed = " ".join((*VIDEO_SUFFIXES, *TABLE_SUFFIXES))
            raise UserError(f"input {uri}: neither a video nor a manifest; allowed are {allowed}")
        return [Entry(uri)], 0
    files = storage.list_files(uri)
    videos = [file for file in files if file.lower().endswith(VIDEO_SUFFIXES)]
    if not videos:
        what = f"none of its {len(files)} files is a video" if files else "an empty directory"
        raise UserError(
            f"input {uri}: {what}; put files ending in {' '.join(VIDEO_SUFFIXES)} there"
        )
    for video in videos:
        _check_text(uri, video)
    return [Entry(video) for video in videos], len(files) - len(videos)


def _read_table(uri: str) -> Iterator[Entry]:
    folder = uri.rsplit("/", 1)[0]
    for where, row in _rows(uri):
        value, caption = row.get("uri"), row.get("caption")
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"manifest {uri}, {where}: uri is {value!r}; give a path or s3:// URI")
        if not isinstance(caption, str | None):
            raise UserError(
                f"manifest {uri}, {where}: caption is {caption!r}; give text or nothing"
            )
        _check_text(f"manifest {uri}, {where}", value + (caption or ""))
        yield Entry(_resolve(value.strip(), folder), (caption or "").strip() or None)


def _rows(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for every row of a table."""
    data = storage.read_bytes(uri)
    if uri.lower().endswith(".parquet"):
        try:
            file = pq.ParquetFile(io.BytesIO(data))
            _check_columns(uri, file.schema_arrow.names)
            columns = [name for name in ("uri", "caption") if name in file.schema_arrow.names]
            rows = file.read(columns=columns).to_pylist()
        except pa.ArrowException as error:
            raise UserError(f"manifest {uri}: not Parquet: {one_line(error)}") from None
        yield from ((f"row {n}", row) for n, row in enumerate(rows, 1))
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"manifest {uri}: not UTF-8 text: {one_line(error)}") from None
    if uri.lower().endswith(".csv"):
        reader = csv.DictReader(io.StringIO(text, newline=""))
        _check_columns(uri, list(reader.fieldnames or ()))
        yield from ((f"row {n}", row) for n, row in enumerate(reader, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
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


def _check_columns(where: str, names: list[str]) -> None:
    if "uri" not in names:
        there = ", ".join(map(str, names)) or "none"
        raise UserError(f"manifest {where}: no column uri (found: {there}); name it uri")


def _check_text(where: str, text: str) -> None:
    """Refuse names that no Arrow table can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="backslashreplace").decode()
        raise UserError(f"{where}: the name {shown} is not UTF-8; rename the file") from None


def _resolve(uri: str, folder: str) -> str:
    """Return `uri` made absolute; one of an unknown scheme stays, and is quarantined later."""
    if "://" in uri and not uri.startswith("file://"):
        return uri
    below = uri if uri.startswith(("/", "~", "file://")) else f"{folder}/{uri}"
    return storage.absolute(below)
