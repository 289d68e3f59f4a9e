"""Manifests of videos to prepare: directories, archives, or tables of URIs and captions."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import compress, islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import entries, tars
from data_prep.analysis import source_id
from data_prep.entries import ROW_BYTES_MAX, Entry
from data_prep.probe import MEDIA_SUFFIXES
from data_prep.schemas import MANIFEST
from infra import storage
from infra.errors import UserError, one_line

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
TEXT_BYTES_MAX = 2 << 30
"""The most text that all rows of a run may hold together: the driver keeps it in memory."""
ARCHIVES_AT_ONCE = 16
"""Archives whose headers are read at the same time; each of them mostly waits for storage."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Manifest:
    """The inputs of a run in their order, each URI once."""

    table: pa.Table
    """Of schema ``MANIFEST``."""
    repeated_uris: int = 0
    """Entries left out since their URI came before; the first one's caption counts."""
    other_files: int = 0
    """Files of directories left out since their names do not end like a video's or an image's."""
    archives: int = 0

    @property
    def notes(self) -> list[str]:
        """Say in lines for people what was left out."""
        notes = []
        if self.archives:
            notes.append(f"{self.archives} archives")
        if self.repeated_uris:
            notes.append(f"{self.repeated_uris} repeated URIs left out (the first one counts)")
        if self.other_files:
            notes.append(
                f"{self.other_files} other files left out "
                f"(videos and images end in {' '.join(MEDIA_SUFFIXES)})"
            )
        return notes


def read(inputs: tuple[str, ...], *, open_archives: bool = True) -> Manifest:
    """Read a job's inputs; memory grows with the text of the rows, and with nothing else.

    Args:
        inputs: each a directory or prefix (searched recursively for videos and archives), one
            video, one WebDataset archive (``.tar``), or a ``.jsonl``, ``.csv`` or ``.parquet``
            table with a column ``uri``, perhaps ``caption``, and any further columns. A relative
            URI in a table is relative to the table's directory; it may be an archive's.
        open_archives: list the videos of archives; else an archive is one entry.

    Raises:
        UserError: an input is missing, empty or malformed.
    """
    rows = _Rows()
    others = 0
    archives: list[str] = []
    for uri in inputs:
        if uri.lower().endswith(TABLE_SUFFIXES) and not storage.is_dir(uri):
            found = _read_table(uri)
        else:
            files, other = _files(uri)
            others += other
            found = map(Entry, files)
        for entry in _opened(found, archives, _members if open_archives else lambda e: [e]):
            rows.add(entry)
    table = rows.table()
    if not table.num_rows:
        raise UserError(f"inputs: no video in {len(archives)} archives ({archives[0]} first)")
    return Manifest(table, rows.repeated, others, len(archives))


def _opened(
    found: Iterable[Entry], archives: list[str], members_of: Callable[[Entry], list[Entry]]
) -> Iterator[Entry]:
    """Yield what is in archives in their place, several read at a time; put them on a list."""
    found = iter(found)
    with ThreadPoolExecutor(ARCHIVES_AT_ONCE) as pool:
        while some := list(islice(found, _ROWS_AT_ONCE)):
            is_archive = [entry.uri.lower().endswith(tars.SUFFIX) for entry in some]
            inside = list(compress(some, is_archive))
            archives += [entry.uri for entry in inside]
            members = pool.map(members_of, inside)
            for entry, opened in zip(some, is_archive, strict=True):
                yield from next(members) if opened else (entry,)


def _members(archive: Entry) -> list[Entry]:
    """Return the videos of an archive; what a manifest's row says of it, it says of each."""
    try:
        members = tars.index(archive.uri)
    except UserError as error:
        return [replace(archive, damage=one_line(error))]
    if archive.caption is None and archive.extra is None:
        return members
    return [entries.inherited(member, archive) for member in members]


class _Rows:
    """Collects entries as Arrow columns, each URI once."""

    def __init__(self) -> None:
        self.repeated = 0
        self._seen: set[bytes] = set()
        self._open: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self._text_bytes = 0

    def add(self, entry: Entry) -> None:
        source = source_id(entry.uri)
        if (digest := bytes.fromhex(source)) in self._seen:
            self.repeated += 1
            return
        self._seen.add(digest)
        self._open.append({"source_id": source, **vars(entry)})
        if len(self._open) == _ROWS_AT_ONCE:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, MANIFEST)

    def _flush(self) -> None:
        batch = pa.RecordBatch.from_pylist(self._open, MANIFEST)
        self._open = []
        self._batches.append(batch)
        self._text_bytes += batch.nbytes
        if self._text_bytes > TEXT_BYTES_MAX:
            raise UserError(
                f"inputs: their rows hold more than {TEXT_BYTES_MAX} bytes of text; "
                "cut them into several runs"
            )


def _files(uri: str) -> tuple[list[str], int]:
    """Return the videos and archives of a directory, or the one that is named; count the rest."""
    wanted = (*MEDIA_SUFFIXES, tars.SUFFIX)
    if not storage.exists(uri):
        raise UserError(f"input {uri}: not found; give a directory of videos or a manifest")
    if not storage.is_dir(uri):
        if not uri.lower().endswith(wanted):
            allowed = " ".join((*wanted, *TABLE_SUFFIXES))
            raise UserError(f"input {uri}: neither a video nor a manifest; allowed are {allowed}")
        return [uri], 0
    files = storage.list_files(uri)
    videos = [file for file in files if file.lower().endswith(wanted)]
    if not videos:
        what = f"none of its {len(files)} files is a video" if files else "an empty directory"
        raise UserError(f"input {uri}: {what}; put files ending in {' '.join(wanted)} there")
    for video in videos:
        _entry(uri, video, {})
    return videos, len(files) - len(videos)


def _read_table(uri: str) -> Iterator[Entry]:
    if not storage.exists(uri):
        raise UserError(f"input {uri}: not found; give a directory of videos or a manifest")
    folder = uri.rsplit("/", 1)[0]
    entry = None
    with storage.open_input(uri) as file:
        for where, row in _rows(uri, file):
            value = row.get("uri")
            if not isinstance(value, str) or not value.strip():
                raise UserError(
                    f"manifest {uri}, {where}: uri is {value!r}; give a path or s3:// URI"
                )
            entry = _entry(f"manifest {uri}, {where}", _resolve(value.strip(), folder), row)
            yield entry
    if entry is None:
        raise UserError(f"input {uri}: no rows; list at least one video in column uri")


def _entry(where: str, uri: str, row: dict[str, Any]) -> Entry:
    try:
        return entries.build(uri, row)
    except ValueError as error:
        raise UserError(f"{where}: {one_line(error)}") from None


def _rows(uri: str, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) for every row of a table, a few at a time."""
    if uri.lower().endswith(".parquet"):
        yield from _parquet_rows(uri, file)
        return
    text = io.TextIOWrapper(file, "utf-8-sig", newline="\n")
    try:
        yield from (_csv_rows if uri.lower().endswith(".csv") else _json_rows)(uri, text)
    except UnicodeDecodeError as error:
        raise UserError(f"manifest {uri}: not UTF-8 text: {one_line(error)}") from None
    finally:
        text.detach()


def _parquet_rows(uri: str, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        table = pq.ParquetFile(file, buffer_size=1 << 20)
        _check_columns(uri, table.schema_arrow.names)
        for batch in table.iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except pa.ArrowException as error:
        raise UserError(f"manifest {uri}: not Parquet: {one_line(error)}") from None


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
