"""Inputs of a run: directories of videos and images, archives, or tables of URIs and captions."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import compress, islice

import numpy as np
import pyarrow as pa

from data_prep import entries, manifest_tables, tars
from data_prep.analysis import source_id
from data_prep.entries import Entry
from data_prep.manifest_tables import TABLE_SUFFIXES, checked_entry
from data_prep.probe import MEDIA_SUFFIXES
from data_prep.schemas import MANIFEST
from data_prep.seen import DTYPE, SeenDigests
from infra import storage
from infra.errors import UserError, one_line

ARCHIVES_AT_ONCE = 16
"""Archives whose headers are read at the same time; each of them mostly waits for storage."""
SIZES_AT_ONCE = 64
"""Files that are asked for their size at the same time."""
_ROWS_AT_ONCE = 4096


@dataclass
class Counts:
    """What was found among the inputs, counted while they are read."""

    inputs: int = 0
    """Rows of the manifest."""
    repeated_uris: int = 0
    """Entries left out since their URI came before; the first one's caption counts."""
    other_files: int = 0
    """Files of directories left out since their names do not end like a video's or an image's."""
    linked_folders: int = 0
    """Links to directories, which are not followed: they may lead anywhere, and in circles."""
    first_link: str = ""
    archives: int = 0
    first_archive: str = ""

    @property
    def notes(self) -> list[str]:
        """Say in lines for people what was left out."""
        notes = []
        if self.archives:
            notes.append(f"{self.archives} archives")
        if self.repeated_uris:
            notes.append(f"{self.repeated_uris} repeated URIs left out (the first one counts)")
        if self.linked_folders:
            notes.append(
                f"{self.linked_folders} linked folders not followed ({self.first_link} first); "
                "give them as inputs of their own"
            )
        if self.other_files:
            notes.append(
                f"{self.other_files} other files left out "
                f"(videos and images end in {' '.join(MEDIA_SUFFIXES)})"
            )
        return notes


@dataclass
class Manifest(Counts):
    """The inputs of a run in their order, each URI once, held whole."""

    table: pa.Table = field(default_factory=MANIFEST.empty_table)
    """Of schema ``MANIFEST``."""


def read(inputs: tuple[str, ...], *, open_archives: bool = True) -> Manifest:
    """Read a job's inputs whole; see :func:`stream`, which holds some rows at a time."""
    counts = Counts()
    batches = list(stream(inputs, counts, open_archives=open_archives))
    return Manifest(**vars(counts), table=pa.Table.from_batches(batches, MANIFEST))


def stream(
    inputs: tuple[str, ...],
    counts: Counts,
    *,
    open_archives: bool = True,
    leave_out: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield a job's inputs in their order, each URI once, some thousands of rows at a time.

    Memory grows by some 16 to 48 bytes a row, to know URIs again.

    Args:
        inputs: each a directory or prefix (searched recursively for videos, images and archives),
            one video or image, one WebDataset archive (``.tar``), or a ``.jsonl``, ``.csv`` or
            ``.parquet`` table with a column ``uri``, perhaps ``caption``, and any further columns.
            A relative URI in a table is relative to the table's directory; it may be an archive's.
        counts: is filled as the inputs are read.
        open_archives: list the videos of archives; else an archive is one entry.
        leave_out: a directory or prefix below an input that is passed over.

    Yields:
        Batches of schema ``MANIFEST``; ``size_bytes`` is null where no listing tells it.

    Raises:
        UserError: an input is missing, empty or malformed.
    """
    seen = SeenDigests()
    found = _all(inputs, counts, leave_out)
    opened = _opened(found, counts, _members if open_archives else lambda entry: [entry])
    while some := list(islice(opened, _ROWS_AT_ONCE)):
        ids = [source_id(entry.uri) for entry in some]
        digests = np.array([bytes.fromhex(one[: 2 * DTYPE.itemsize]) for one in ids], DTYPE)
        new = seen.add(digests)
        counts.repeated_uris += len(some) - int(new.sum())
        counts.inputs += int(new.sum())
        rows = [{"source_id": i, **vars(e)} for i, e in compress(zip(ids, some, strict=True), new)]
        if rows:
            yield pa.RecordBatch.from_pylist(rows, MANIFEST)
    if not counts.inputs:
        first = counts.first_archive
        raise UserError(f"inputs: no video in {counts.archives} archives ({first} first)")


def with_sizes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of a manifest with the sizes that no listing told, by a request each.

    A size stays null where the file is missing or closed to us; :exc:`storage.Unavailable` when
    storage is away.
    """
    sizes = batch["size_bytes"].to_pylist()
    unknown = [
        n for n, size in enumerate(sizes) if size is None and not batch["damage"][n].is_valid
    ]
    with ThreadPoolExecutor(SIZES_AT_ONCE) as pool:
        asked = pool.map(_size, (batch["uri"][n].as_py() for n in unknown))
        for n, size in zip(unknown, asked, strict=True):
            sizes[n] = size
    place = batch.schema.get_field_index("size_bytes")
    return batch.set_column(place, batch.schema.field(place), pa.array(sizes, pa.int64()))


def _size(uri: str) -> int | None:
    try:
        return storage.size_bytes(uri)
    except UserError:  # the analysis says why
        return None


def _all(inputs: tuple[str, ...], counts: Counts, leave_out: str | None) -> Iterator[Entry]:
    for uri in inputs:
        if uri.lower().endswith(TABLE_SUFFIXES) and not storage.is_dir(uri):
            yield from manifest_tables.read(uri)
        else:
            yield from _files(uri, counts, leave_out)


def _opened(
    found: Iterable[Entry], counts: Counts, members_of: Callable[[Entry], list[Entry]]
) -> Iterator[Entry]:
    """Yield what is in archives in their place, several read at a time, and count archives."""
    found = iter(found)
    with ThreadPoolExecutor(ARCHIVES_AT_ONCE) as pool:
        while some := list(islice(found, _ROWS_AT_ONCE)):
            is_archive = [entry.uri.lower().endswith(tars.SUFFIX) for entry in some]
            inside = list(compress(some, is_archive))
            counts.archives += len(inside)
            if inside:
                counts.first_archive = counts.first_archive or inside[0].uri
            at_once = iter(inside)
            members = (m for group in _groups(at_once) for m in pool.map(members_of, group))
            for entry, opened in zip(some, is_archive, strict=True):
                yield from next(members) if opened else (entry,)


def _groups(archives: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Yield archives in groups, so that the members of few of them are held."""
    while some := list(islice(archives, 2 * ARCHIVES_AT_ONCE)):
        yield some


def _members(archive: Entry) -> list[Entry]:
    """Return the videos of an archive; what a manifest's row says of it, it says of each."""
    try:
        members = tars.index(archive.uri)
    except UserError as error:
        return [replace(archive, size_bytes=None, damage=one_line(error))]
    if archive.caption is None and archive.extra is None:
        return members
    return [entries.inherited(member, archive) for member in members]


def _files(uri: str, counts: Counts, leave_out: str | None) -> Iterator[Entry]:
    """Yield the videos and archives of a directory, or the one that is named; count the rest."""
    wanted = (*MEDIA_SUFFIXES, tars.SUFFIX)
    if not storage.exists(uri):
        raise UserError(f"input {uri}: not found; give a directory of videos or a manifest")
    if not storage.is_dir(uri):
        if not uri.lower().endswith(wanted):
            allowed = " ".join((*wanted, *TABLE_SUFFIXES))
            raise UserError(f"input {uri}: neither a video nor a manifest; allowed are {allowed}")
        yield Entry(uri)
        return
    videos = others = links = 0
    for file, size in storage.walk(uri, leave_out=leave_out):
        if not storage.is_remote(file) and os.path.islink(file) and os.path.isdir(file):
            links += 1
            counts.first_link = counts.first_link or file
        elif file.lower().endswith(wanted):
            videos += 1
            yield replace(checked_entry(uri, file, {}), size_bytes=size)
        else:
            others += 1
    counts.other_files += others
    counts.linked_folders += links
    if not videos:
        what = f"none of its {others} files is a video" if others else "an empty directory"
        what += f", and {links} linked folders are not followed" if links else ""
        raise UserError(f"input {uri}: {what}; put files ending in {' '.join(wanted)} there")
