"""The index of a shard artifact: what every row group holds and where its bytes are.

One Arrow file, ``index.arrow``, one row a shard. Who reads it lists nothing and opens no footer: it
knows the shapes, and gets a row group in one ranged request. It is fetched once a node, kept in the
temporary folder under a lock, and mapped into the memory of all processes there; what nobody opened
for a week goes when another one is fetched::

    shards ─footers─▶ batches of rows ─write─▶ index.arrow ─Index(uri)─▶ shapes, row groups
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_prep import shards
from data_prep.sample import Shape
from data_prep.shards import ShardSpec
from infra import artifact, storage
from infra.errors import UserError

FILE = "index.arrow"
_TAIL_BYTES = 64 << 10
"""What is read of a shard's end first; most footers are shorter."""
UNUSED_S = 7 * 24 * 3600
"""Local indexes that nobody opened for so long are removed."""

_HELD = pa.struct(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
_ROW_GROUP = pa.struct(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("held", pa.list_(_HELD), nullable=False),
    ]
)
_FIELDS = [
    pa.field("path", pa.string(), nullable=False),  # below the artifact
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("rows", pa.int64(), nullable=False),
    pa.field("footer_bytes", pa.int64(), nullable=False),
    pa.field("footer", pa.large_binary(), nullable=False),  # zstd; Parquet's own, with its end
    pa.field("row_groups", pa.list_(_ROW_GROUP), nullable=False),
]


def describe(artifact_uri: str, files: Sequence[tuple[str, int]]) -> pa.Table:
    """Return the index's rows of some shards.

    Args:
        artifact_uri: what holds them.
        files: path below it and bytes of each, at least one, all of one spec.

    Raises:
        UserError: a file is no shard of this version, or of another spec than the first.
    """
    rows, specs = [], []
    for path, size_bytes in files:
        footer = footer_bytes(storage.join(artifact_uri, path), size_bytes)
        metadata = pq.read_metadata(pa.BufferReader(footer))
        spec = _spec(metadata.schema.to_arrow_schema(), path)
        if specs and spec != specs[0]:
            raise UserError(f"{path}: made with other settings than {files[0][0]}")
        specs.append(spec)
        groups = [
            {**_range(metadata.row_group(number)), "held": _held_rows(held)}
            for number, held in enumerate(shards.held(metadata))
        ]
        rows.append(
            {
                "path": path,
                "size_bytes": size_bytes,
                "rows": metadata.num_rows,
                "footer_bytes": len(footer),
                "footer": pa.compress(footer, "zstd", asbytes=True),
                "row_groups": groups,
            }
        )
    return pa.Table.from_pylist(rows, pa.schema(_FIELDS, metadata=specs[0].schema.metadata))


def footer_bytes(uri: str, size_bytes: int) -> bytes:
    """Return the end of a Parquet file from its footer on, in one request or two."""
    tail = storage.read_range(uri, max(size_bytes - _TAIL_BYTES, 0), min(_TAIL_BYTES, size_bytes))
    if tail[-4:] != b"PAR1":
        raise UserError(f"{uri}: not a Parquet file")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = storage.read_range(uri, size_bytes - length, length)
    return tail[-length:]


def write(artifact_uri: str, tables: Iterable[pa.Table]) -> None:
    """Write the index of an artifact from its rows, in the order in which loaders number them.

    Raises:
        UserError: there is none, or shards of several specs.
    """
    tables = iter(tables)
    first = next(tables, None)
    if first is None:
        raise UserError(f"{artifact_uri}: no shards to index")
    with (
        storage.open_output(storage.join(artifact_uri, FILE)) as file,
        pa.ipc.new_file(file, first.schema) as writer,
    ):
        writer.write_table(first)
        for table in tables:
            if not table.schema.equals(first.schema, check_metadata=True):
                raise UserError(f"{artifact_uri}: its shards were made with different settings")
            writer.write_table(table)


def build(artifact_uri: str, kind: str) -> None:
    """Index the shards of an artifact from here, one after the other: for a few files."""
    folder = storage.join(artifact_uri, kind)
    listed = storage.list_sizes(folder, (".parquet",)).items()
    files = [(file[len(artifact_uri) + 1 :], size) for file, size in listed]
    write(artifact_uri, [describe(artifact_uri, files)] if files else [])


class Index:
    """The index of a finished artifact, mapped into memory.

    Args:
        artifact_uri: of kind ``frames``, ``tokens`` or ``latents``.

    Raises:
        UserError: no such artifact, or its index is of another version.
    """

    def __init__(self, artifact_uri: str) -> None:
        artifact.read(artifact_uri, shards.KINDS)
        self._uri = artifact_uri
        source = pa.memory_map(str(_local(artifact_uri)))
        self._files = pa.ipc.open_file(source).read_all()
        self.spec = _spec(self._files.schema, storage.join(artifact_uri, FILE))
        groups = self._files["row_groups"]
        lengths = [np.asarray(chunk.value_lengths()) for chunk in groups.chunks]
        self._group_ends = np.concatenate([*lengths, np.zeros(0, np.int64)]).cumsum()

    @property
    def uri(self) -> str:
        """The artifact's."""
        return self._uri

    def __len__(self) -> int:
        """The number of row groups."""
        return int(self._group_ends[-1]) if len(self._group_ends) else 0

    def groups_of(self, file: int) -> range:
        """Return the numbers of a file's row groups."""
        return range(int(self._group_ends[file - 1]) if file else 0, int(self._group_ends[file]))

    @property
    def files(self) -> pa.Table:
        """One row a shard: ``path``, ``size_bytes``, ``rows``, ``footer``, ``row_groups``."""
        return self._files

    def counts(self, split: str | None = None) -> dict[Shape, tuple[NDArray[Any], NDArray[Any]]]:
        """Return for each shape which row groups have windows of it, and how many.

        Args:
            split: whose clips are counted; None counts all.
        """
        found: dict[Shape, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
        first = 0
        for chunk in self._files["row_groups"].chunks:
            held = chunk.flatten().field("held")
            entries = held.flatten()
            groups = first + np.repeat(np.arange(len(held)), np.asarray(held.value_lengths()))
            first += len(held)
            ours = np.ones(len(entries), dtype=bool)
            if split is not None:
                ours = entries.field("split").to_numpy(zero_copy_only=False) == split
            shape_N3 = np.stack(
                [entries.field(name).to_numpy() for name in ("frames", "height", "width")], 1
            )
            counts = entries.field("count").to_numpy()
            for shape in np.unique(shape_N3[ours], axis=0):
                at = ours & (shape_N3 == shape).all(axis=1)
                frames, height, width = map(int, shape)
                found.setdefault((frames, height, width), []).append((groups[at], counts[at]))
        return {
            shape: (np.concatenate([g for g, _ in parts]), np.concatenate([n for _, n in parts]))
            for shape, parts in sorted(found.items())
        }

    def read(self, group: int) -> pa.Table:
        """Return a row group by its number over all files, in one ranged request."""
        at = int(np.searchsorted(self._group_ends, group, side="right"))
        file = self._files.slice(at, 1)
        groups = file["row_groups"].combine_chunks().flatten()
        number = group - (int(self._group_ends[at]) - len(groups))
        place = groups[number].as_py()
        footer = pa.decompress(
            file["footer"][0].as_buffer(), file["footer_bytes"][0].as_py(), "zstd"
        )
        uri = storage.join(self._uri, file["path"][0].as_py())
        data = storage.read_range(uri, place["offset"], place["size_bytes"])
        if len(data) != place["size_bytes"]:
            raise UserError(f"{uri}: cut short; run the job that made it again")
        window = _Window(data, place["offset"], file["size_bytes"][0].as_py())
        metadata = pq.read_metadata(pa.BufferReader(footer))
        return pq.ParquetFile(pa.PythonFile(window, "r"), metadata=metadata).read_row_group(number)


class _Window(io.RawIOBase):
    """A file of which only one stretch is there, and nothing else may be asked for."""

    def __init__(self, data: bytes, offset: int, size_bytes: int) -> None:
        super().__init__()
        self._data, self._offset, self._size, self._at = memoryview(data), offset, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        start = self._at - self._offset
        stop = start + (self._size - self._at if size < 0 else size)
        assert 0 <= start <= stop <= len(self._data), "bytes outside of the row group"
        self._at += stop - start
        return bytes(self._data[start:stop])


def _local(artifact_uri: str) -> Path:
    """Return a local file with an artifact's index, fetched by the first who asks on this node."""
    uri = storage.join(artifact_uri, FILE)
    if not storage.is_remote(uri):
        path = Path(storage.absolute(uri))
        if not path.exists():
            raise UserError(f"{uri}: not found; made by an earlier version: run its job again")
        return path
    held = json.dumps([uri, storage.checksum(uri)])  # what is made anew has the same name
    folder = Path(tempfile.gettempdir()) / f"longtake-index-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
    name = hashlib.sha256(held.encode()).hexdigest()[:32]
    target = folder / f"{name}.arrow"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            os.utime(target)
        else:
            _remove_unused(folder)
            with storage.local_copy(uri) as copy:
                partial = target.with_suffix(".partial")
                shutil.copyfile(copy, partial)
                os.replace(partial, target)
    return target


def _remove_unused(folder: Path) -> None:
    """Remove local indexes that nobody opened for long; who has one open keeps its contents."""
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process of this node removed it
            if file.stat().st_mtime < time.time() - UNUSED_S:
                file.unlink()


def _spec(schema: pa.Schema, file: str) -> ShardSpec:
    try:
        return ShardSpec.read(schema.metadata, file)
    except ValueError as error:
        raise UserError(str(error)) from None


def _range(group: pq.RowGroupMetaData) -> dict[str, int]:
    """Return where a row group's bytes are: from its first page to its last."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [
        min(c.data_page_offset, c.dictionary_page_offset or c.data_page_offset) for c in columns
    ]
    ends = [start + c.total_compressed_size for start, c in zip(starts, columns, strict=True)]
    return {"offset": min(starts), "size_bytes": max(ends) - min(starts)}


def _held_rows(held: shards.Held) -> list[dict[str, Any]]:
    return [
        {"split": split, "frames": frames, "height": height, "width": width, "count": count}
        for split, shapes in held.items()
        for (frames, height, width), count in shapes.items()
    ]
