"""Index of the videos and images in a WebDataset archive, from its headers alone.

::

    film.mp4   the video (or film.jpg, an image)   what shares a key, the path up to the first dot
    film.txt   its caption                     of the name, belongs together, in whatever order
    film.json  its caption, further columns

Nothing is unpacked: a video becomes a URI that names its run of bytes (:func:`storage.slice_uri`).
Names out of an archive are for people; no path is ever made of one. Links and devices are passed
over. Headers are read by ranges, and none of them may claim more memory than it is worth.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from data_prep import entries
from data_prep.entries import ROW_BYTES_MAX, Entry
from data_prep.probe import MEDIA_SUFFIXES
from infra import storage
from infra.errors import one_line
from infra.log import logger

SUFFIX = ".tar"
READ_BYTES = 64 << 10
"""What is read of a remote archive around each header."""
_BLOCK = tarfile.BLOCKSIZE
_HEADER_BYTES_MAX = 64 << 10
_PADDING_BYTES_MAX = 1 << 20  # tar pads to 10 KiB, or to what it is told
_ABOUT_THE_NEXT = (
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class _Damaged(Exception):
    pass


@dataclass(frozen=True)
class _Member:
    name: str
    start: int
    size_bytes: int

    @property
    def key(self) -> str:
        folder, slash, name = self.name.rpartition("/")
        return folder + slash + name.split(".", 1)[0]


def index(uri: str) -> list[Entry]:
    """Return the videos of an archive, in its order.

    One that is damaged gives the videos before the damage, and an entry of its own that says so;
    a video whose caption cannot be read says so too.

    Raises:
        UserError: the archive is missing; :class:`storage.Unavailable` when storage is away.
    """
    videos: list[_Member] = []
    about: dict[str, dict[str, Any]] = {}
    damage, unsaid = [], list[str]()
    size_bytes = storage.size_bytes(uri)
    with storage.open_input(uri, READ_BYTES) as file:
        try:
            for member in _members(file, size_bytes):
                if member.name.lower().endswith(MEDIA_SUFFIXES):
                    videos.append(member)
                elif member.name.lower().endswith((".txt", ".json")):
                    about.setdefault(member.key, {}).update(_read_about(file, member))
        except _Damaged as error:
            damage = [Entry(uri, damage=str(error))]
    found = [_entry(uri, video, about.get(video.key, {}), unsaid) for video in videos]
    if unsaid:
        logger.warning(
            f"archive {uri}: {len(unsaid)} cells hold NaN or infinite numbers, which are left out "
            f"(column {unsaid[0]} first)"
        )
    return [*found, *damage]


def _entry(uri: str, video: _Member, about: dict[str, Any], unsaid: list[str]) -> Entry:
    name = storage.slice_uri(uri, video.start, video.size_bytes, video.name)
    row = {**about.get("json", {}), **about.get("txt", {})}
    try:
        entry = entries.build(name, row, unsaid)
        return replace(entry, damage=about.get("damage"), size_bytes=video.size_bytes)
    except ValueError as error:
        return Entry(name, damage=f"{video.key}: {one_line(error)}")


def _read_about(file: IO[bytes], member: _Member) -> dict[str, Any]:
    if member.size_bytes > ROW_BYTES_MAX:
        what = f"{member.size_bytes} bytes; allowed are {ROW_BYTES_MAX}"
        return {"damage": f"{member.name}: {what}"}
    file.seek(member.start)
    try:
        text = file.read(member.size_bytes).decode("utf-8-sig")
        if member.name.lower().endswith(".txt"):
            return {"txt": {"caption": text}}
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, without end
        return {"damage": f"{member.name}: {one_line(error, 80)}"}
    if not isinstance(value, dict):
        return {"damage": f"{member.name}: holds a {type(value).__name__}, not an object"}
    return {"json": value}


def _members(file: IO[bytes], size_bytes: int) -> Iterator[_Member]:
    """Yield the regular files of an archive that are not hidden, reading nothing but headers.

    Raises:
        _Damaged: says where the archive stops making sense.
    """
    at, longer = 0, {}
    while block := _read(file, at, _BLOCK):
        if block == bytes(_BLOCK):
            if (more := _after_the_end(file, at, size_bytes)) is None:
                return
            at = more
            continue
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError as error:
            raise _Damaged(f"header at byte {at}: {error}") from None
        start, size = at + _BLOCK, header.size
        if header.type not in _ABOUT_THE_NEXT:
            size = int(longer.get("size", size))
            if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
                size = 0  # of a link or a directory, whatever it says
        if not 0 <= size <= size_bytes - start:
            raise _Damaged(
                f"member at byte {at} ends at {start + size}, the archive at {size_bytes}"
            )
        if header.type in _ABOUT_THE_NEXT:
            longer |= _about_the_next(file, header.type, start, size)
        else:
            sparse = any(key.startswith("GNU.sparse.") for key in longer)
            if sparse or header.type == tarfile.GNUTYPE_SPARSE:
                raise _Damaged(f"member at byte {at} is sparse; make the archive without --sparse")
            parts = [p for p in longer.get("path", header.name).split("/") if p.strip(".")]
            if header.isreg() and parts and not any(part.startswith(".") for part in parts):
                yield _Member("/".join(parts), start, size)
            longer = {}
        at = start + -(-size // _BLOCK) * _BLOCK
    raise _Damaged(f"no end mark at byte {at}: the archive is cut short")


def _after_the_end(file: IO[bytes], at: int, size_bytes: int) -> int | None:
    """Return where another archive begins after an end mark at `at`; None where nothing does.

    Raises:
        _Damaged: more than `_PADDING_BYTES_MAX` of padding, or what follows is no archive.
    """
    begin = at
    while block := _read(file, at, _BLOCK):
        if at - begin > _PADDING_BYTES_MAX:
            raise _Damaged(f"{size_bytes - at} bytes after its end and its padding are not read")
        if block.strip(b"\0"):
            try:
                tarfile.TarInfo.frombuf(block, "utf-8", "replace")
            except tarfile.HeaderError:
                left = size_bytes - at
                raise _Damaged(f"{left} bytes after its end are no archive") from None
            return at
        at += _BLOCK
    return None


def _about_the_next(file: IO[bytes], kind: bytes, start: int, size_bytes: int) -> dict[str, str]:
    """Return what a header says of the member after it."""
    if kind in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
        return {}
    if size_bytes > _HEADER_BYTES_MAX:
        raise _Damaged(f"header at byte {start} of {size_bytes} bytes")
    body = _read(file, start, size_bytes)
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": body.split(b"\0")[0].decode(errors="replace")}
    return _pax(body)


def _pax(body: bytes) -> dict[str, str]:
    """Return the records of a PAX header: ``LENGTH KEY=VALUE`` and a line end, in UTF-8."""
    found, at = {}, 0
    while at < len(body) and body[at : at + 1] != b"\0":
        length, space, _ = body[at : at + 20].partition(b" ")
        if not space or not length.isdigit() or not 0 < int(length) <= len(body) - at:
            raise _Damaged("a PAX header that makes no sense")
        record = body[at + len(length) + 1 : at + int(length) - 1]
        key, _, value = record.decode(errors="replace").partition("=")
        found[key] = value
        at += int(length)
    size = found.get("size", "0")
    if not size.isdecimal() or len(size) > 20:
        raise _Damaged("a PAX header that makes no sense")
    return found


def _read(file: IO[bytes], at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
