"""Local paths and ``s3://`` URIs behind one set of functions.

No other module knows what kind of storage a URI names. Credentials and endpoint of S3 come from
the usual chain (environment, config files, instance role; ``AWS_ENDPOINT_URL`` for servers other
than AWS). A file appears under its name only once it is whole.

Throttling and a server that is gone for a while are waited out, more and more slowly, for about
75 s a request (``AWS_MAX_ATTEMPTS`` sets how often it is tried). What outlasts that is
:class:`Unavailable`, which says nothing of the file that was asked for.
"""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow.fs

from infra import objects, trees
from infra.errors import Unavailable as Unavailable
from infra.errors import UserError, one_line
from infra.filesystems import BLOCK_BYTES, absolute, is_remote
from infra.filesystems import explained as _explained
from infra.filesystems import filesystem as _open

RANGE_BYTES = 1 << 20  # what `open_ranges` reads of a remote file at once
_SLICE = re.compile(r"(?P<file>.+?\.tar)#(?P<start>\d+)\+(?P<size>\d+)/", re.IGNORECASE)


@dataclass(frozen=True)
class Ranges:
    """Bytes that are read where they are wanted."""

    size_bytes: int
    read: Callable[[int, int], bytes]
    """Returns the bytes from the given offset on, of the given count; both within the size."""


def join(uri: str, *parts: str) -> str:
    """Return `uri` with `parts` below it; a part that would climb out of `uri` is refused."""
    joined = "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])
    if any(".." in part.split("/") for part in parts):
        raise UserError(f"{joined}: a path below {uri} may not contain '..'")
    return joined


def name(uri: str) -> str:
    """Return the last part of `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def slice_uri(uri: str, start: int, size_bytes: int, name: str) -> str:
    """Return the URI of a run of bytes of the ``.tar`` file at `uri`, shown as `name`.

    :func:`size_bytes` and :func:`local_copy` read such URIs.
    """
    return f"{uri}#{start}+{size_bytes}/{name}"


def is_copied(uri: str) -> bool:
    """Return whether :func:`local_copy` of `uri` takes room on the local disk."""
    return is_remote(uri) or _SLICE.match(uri) is not None


def exists(uri: str) -> bool:
    """Return whether there is a file or directory at `uri`."""
    fs, path = _open(uri)
    with _explained(uri):
        return fs.exists(path)


def is_dir(uri: str) -> bool:
    """Return whether `uri` is a directory (for S3: a prefix with something below it)."""
    fs, path = _open(uri)
    with _explained(uri):
        return fs.isdir(path)


def size_bytes(uri: str) -> int:
    """Return the size of the file or the run of bytes at `uri`."""
    if part := _SLICE.match(uri):
        return int(part["size"])
    fs, path = _open(uri)
    with _explained(uri):
        return int(fs.size(path) or 0)


def checksum(uri: str) -> str:
    """Return what changes when the file at `uri` does: of S3 its ETag, else size and time."""
    fs, path = _open(uri)
    with _explained(uri):
        return str(fs.checksum(path))


def list_files(uri: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Return every file below `uri`, sorted; see :func:`walk`, which holds none of them."""
    return list(list_sizes(uri, suffixes))


def list_sizes(uri: str, suffixes: tuple[str, ...] = ()) -> dict[str, int]:
    """Return the files of :func:`list_files` with their sizes in bytes, by one listing."""
    return dict(sorted(walk(uri, suffixes)))


def walk(
    uri: str, suffixes: tuple[str, ...] = (), leave_out: str | None = None
) -> Iterator[tuple[str, int]]:
    """Yield every file below `uri` with its size in bytes, in the order of names.

    A listing is read as it is asked for: of S3 a page at a time, of a disk a directory at a time.
    Names that start with a dot are passed over.

    Args:
        uri: a directory or prefix; one that is not there holds no files.
        suffixes: lower-case endings to keep, such as ``(".mp4",)``; empty keeps all.
        leave_out: a directory or prefix that may lie below `uri` and is passed over.
    """
    fs, path = _open(uri)
    path = path.rstrip("/")
    skipped = f"{_open(leave_out)[1].rstrip('/')}/" if leave_out else None
    with _explained(uri):
        for file, size in objects.walk(fs, path) if is_remote(uri) else _walk_disk(path):
            hidden = any(part.startswith(".") for part in file[len(path) :].split("/"))
            if skipped and file.startswith(skipped):
                continue
            if not hidden and (not suffixes or file.lower().endswith(suffixes)):
                yield (f"s3://{file}" if is_remote(uri) else file), size


def list_folders(uri: str) -> list[str]:
    """Return the directories or prefixes right below `uri`, sorted; none where nothing is."""
    fs, path = _open(uri)
    with _explained(uri), suppress(FileNotFoundError):
        found = [i["name"] for i in cast(Any, fs).ls(path, True) if i["type"] == "directory"]
        return sorted(f"s3://{f}" if is_remote(uri) else f.rstrip("/") for f in found)
    return []


def _walk_disk(path: str) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda e: e.name + "/" * e.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        yield path, os.path.getsize(path)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_disk(entry.path)
        elif not entry.name.startswith("."):
            yield entry.path, os.path.getsize(entry.path) if os.path.exists(entry.path) else 0


def make_dirs(uri: str) -> None:
    """Make the directory `uri` and those above it; of S3, see that there is such a bucket."""
    if not is_remote(uri):
        with _explained(uri):
            os.makedirs(absolute(uri), exist_ok=True)
        return
    fs, path = _open(uri)
    with _explained(uri), suppress(PermissionError):  # some may write who may not look
        try:
            fs.info(path.split("/")[0])
        except FileNotFoundError:
            raise UserError(f"{uri}: no such bucket; make it first") from None


def remove(uri: str) -> None:
    """Remove the file or directory at `uri`, if it is there."""
    fs, path = _open(uri)
    with _explained(uri):
        if is_remote(uri):
            objects.remove(fs, path)
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


@contextmanager
def open_input(uri: str, block_bytes: int = BLOCK_BYTES) -> Iterator[IO[bytes]]:
    """Open the file at `uri` for reading, seekable.

    Args:
        uri: of the file.
        block_bytes: what is read of a remote file at once, and kept.
    """
    fs, path = _open(uri)
    with _explained(uri), fs.open(path, "rb", block_size=block_bytes) as file:
        yield cast(IO[bytes], file)


@contextmanager
def open_output(uri: str) -> Iterator[IO[bytes]]:
    """Open `uri` for writing; the file appears, whole, when the block ends without an error."""
    fs, path = _open(uri)
    if is_remote(uri):  # an upload is invisible until it completes
        with _explained(uri):
            file: Any = fs.open(path, "wb")
            try:
                yield cast(IO[bytes], file)
            except BaseException:
                file.discard()
                file.closed = True  # or its finalizer tries to upload
                raise
            file.close()
        return
    make_dirs(os.path.dirname(path))
    partial = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with _explained(uri), open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


@contextmanager
def open_ranges(uri: str) -> Iterator[Ranges]:
    """Open the file or the run of bytes at `uri` for reading here and there."""
    part = _SLICE.match(uri)
    file_uri, start = (part["file"], int(part["start"])) if part else (uri, 0)
    size = size_bytes(uri)
    with open_input(file_uri, RANGE_BYTES) as file:

        def read(at: int, count: int) -> bytes:
            file.seek(start + at)
            data = file.read(count)
            if len(data) < count:
                raise UserError(f"{uri}: ends at {at + len(data)} of {size} bytes")
            return data

        yield Ranges(size, read)


def read_range(uri: str, start: int, count: int) -> bytes:
    """Return `count` bytes of the file at `uri` from `start` on, in one request."""
    with _explained(uri):
        fs, path = _open(uri)
        return cast(bytes, fs.cat_file(path, start=start, end=start + count))


def read_bytes(uri: str) -> bytes:
    """Return the bytes of the file at `uri`, in one request: what it held at one moment."""
    with _explained(uri):
        fs, path = _open(uri)
        return cast(bytes, fs.cat_file(path))


def write_bytes(uri: str, data: bytes) -> None:
    """Write `data` to `uri`, whole or not at all."""
    with open_output(uri) as file:
        file.write(data)


def read_text(uri: str) -> str:
    """Return the UTF-8 text of the file at `uri`."""
    return read_bytes(uri).decode()


def write_text(uri: str, text: str) -> None:
    """Write `text` to `uri` as UTF-8, whole or not at all."""
    write_bytes(uri, text.encode())


def read_json(uri: str) -> Any:
    """Return the JSON value in the file at `uri`."""
    return _parsed(uri, trees.of_json)


def read_map(uri: str) -> dict[str, Any]:
    """Return the map in the JSON file at `uri`."""
    return _parsed(uri, trees.map_of_json)


def _parsed(uri: str, parse: Callable[[bytes], Any]) -> Any:
    data = read_bytes(uri)
    try:
        return parse(data)
    except ValueError as error:
        raise UserError(f"{uri}: {one_line(error)}") from None


def write_json(uri: str, value: Any) -> None:
    """Write `value` to `uri` as indented JSON."""
    write_text(uri, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Yield a local path with the bytes of `uri`: the file itself, or a temporary copy.

    No name that storage or an archive holds becomes part of the copy's path, but for its ending.
    """
    if not is_copied(uri):
        yield Path(absolute(uri))
        return
    ending = re.search(r"\.\w{1,8}$", uri, re.ASCII)
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        target = Path(folder) / f"copy{ending[0] if ending else ''}"
        if part := _SLICE.match(uri):
            _copy_slice(part["file"], int(part["start"]), int(part["size"]), target)
        else:
            fs, path = _open(uri)
            with _explained(uri):
                fs.get_file(path, str(target))
        yield target


def _copy_slice(uri: str, start: int, size_bytes: int, target: Path) -> None:
    with open_input(uri) as source, target.open("wb") as copy:
        source.seek(start)
        while size_bytes:
            chunk = source.read(min(size_bytes, BLOCK_BYTES))
            if not chunk:
                raise UserError(f"{uri}: ends {size_bytes} bytes before its member does")
            copy.write(chunk)
            size_bytes -= len(chunk)


def upload_dir(local: str | Path, uri: str) -> None:
    """Copy the files below the local directory `local` to `uri`."""
    for file in sorted(Path(local).rglob("*")):
        if file.is_file():
            with (
                file.open("rb") as source,
                open_output(join(uri, *file.relative_to(local).parts)) as t,
            ):
                while chunk := source.read(8 << 20):
                    t.write(chunk)


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the pyarrow filesystem of `uri` and the path to use with it."""
    if not is_remote(uri):
        return pyarrow.fs.LocalFileSystem(), absolute(uri)
    fs, path = _open(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path
