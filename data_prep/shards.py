"""Shards: Parquet files of frames, tokens or latents under one schema, one row a clip.

A row holds **windows** of its clip: the frames themselves (one window), or what a codec made of
stretches of them. What the bytes are stands once a file, in the schema's metadata: their type, the
codec, and how the text was encoded. Each file's footer tells how many windows of each shape every
row group holds, by split, so that an index (:mod:`data_prep.index`) needs no row.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.sample import Shape

VERSION = "4"
ROW_GROUP_BYTES = 8 << 20
"""What a loader reads at once: enough for one request, little enough to keep several."""
PIECE_BYTES = 256 << 20
"""The most that a row should hold: a longer clip has several, whose windows start later in it."""
_SHAPES = b"longtake.shapes"
_REPEATED = ["video_id", "caption", "split", "fps"]

Kind = Literal["frames", "tokens", "latents"]
KINDS: tuple[Kind, ...] = ("frames", "tokens", "latents")
Row = dict[str, Any]
Held = dict[str, dict[Shape, int]]
"""Split to shape to how many windows."""

WINDOW = pa.struct(
    [
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("start_frame", pa.int32(), nullable=False),
        # frames (T, H, W, 3), tokens (T, H, W), latents (C, T, H, W)
        pa.field("shape", pa.list_(pa.int32()), nullable=False),
        pa.field("data", pa.large_binary(), nullable=False),
    ]
)
_COLUMNS = [
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("video_id", pa.string(), nullable=False),
    pa.field("caption", pa.string()),
    pa.field("split", pa.string(), nullable=False),  # "train" or "validation"
    pa.field("start_s", pa.float64(), nullable=False),
    pa.field("end_s", pa.float64(), nullable=False),
    pa.field("fps", pa.float64(), nullable=False),  # of the frames, not of the source
    pa.field("frames", pa.int32(), nullable=False),  # of the clip that the row covers
    pa.field("motion", pa.float32()),
    pa.field("text", pa.binary()),  # unpadded ids or embeddings; null where none were made
    pa.field("windows", pa.list_(WINDOW), nullable=False),
]


@dataclass(frozen=True)
class ShardSpec:
    """What the bytes of a shard are, as its schema's metadata says it."""

    kind: Kind
    dtype: str = "uint8"
    """numpy's name of the type of ``data``."""
    codec: dict[str, Any] | None = None
    """The codec's spec as plain data; None for frames."""
    codec_fingerprint: str | None = None
    text: dict[str, Any] | None = None
    """The text encoder's ``kind``, ``fingerprint``, ``dtype`` and ``dim`` (None: ids)."""

    @property
    def schema(self) -> pa.Schema:
        """The schema of a file, with this in its metadata."""
        about = {"dtype": self.dtype, "codec": self.codec, "text": self.text,
                 "codec_fingerprint": self.codec_fingerprint}  # fmt: skip
        return pa.schema(
            _COLUMNS,
            metadata={
                "longtake.schema": self.kind,
                "longtake.version": VERSION,
                "longtake.about": json.dumps(about, sort_keys=True),
            },
        )

    @classmethod
    def read(cls, metadata: dict[bytes, bytes] | None, file: str) -> Self:
        """Return what a schema's metadata says.

        Raises:
            ValueError: it is of no shard, or of one that another version wrote.
        """
        found = {k.decode(): v.decode() for k, v in (metadata or {}).items()}
        kind, version = found.get("longtake.schema", "none"), found.get("longtake.version", "none")
        if kind not in (*KINDS, "pixels"):
            raise ValueError(f"{file}: holds {kind}; expected are shards of {', '.join(KINDS)}")
        if version != VERSION:
            raise ValueError(
                f"{file}: shards of version {version}; readable is {VERSION}: run the job that "
                "made them again, into another output"
            )
        return cls(kind, **json.loads(found["longtake.about"]))  # pyright: ignore

    def window(self, data: Any, shape: Iterable[int]) -> np.ndarray:
        """Return a window's bytes as an array, a view of them."""
        return np.frombuffer(data, self.dtype).reshape(tuple(shape))

    def text_array(self, data: Any) -> np.ndarray | None:
        """Return a row's text as ids (N,) or embeddings (N, D), a view of its bytes."""
        if data is None or self.text is None:
            return None
        values = np.frombuffer(data, self.text["dtype"])
        return values if self.text.get("dim") is None else values.reshape(-1, self.text["dim"])

    def rows_and_columns(self, shape: list[int]) -> tuple[int, int]:
        """Return H and W of a window's shape."""
        height, width = shape[1:3] if self.kind == "frames" else shape[-2:]
        return height, width


class Writer:
    """Writes a shard: rows are collected into row groups by their bytes.

    Args:
        where: a path or a file opened for writing.
        spec: of the shard.
        row_group_bytes: a row group ends with the row that reaches this.
    """

    def __init__(self, where: Any, spec: ShardSpec, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._spec, self._most = spec, row_group_bytes
        self._file = pq.ParquetWriter(
            where, spec.schema, compression="zstd", write_statistics=False,
            use_dictionary=_REPEATED,  # pyright: ignore[reportArgumentType]: it takes names too
        )  # fmt: skip
        self._waiting: list[Row] = []
        self._waiting_bytes = 0
        self._held: list[Held] = []
        self.rows = 0
        """How many were added."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, row: Row) -> None:
        """Add a row, its windows' ``data`` and its ``text`` as bytes."""
        self._waiting.append(row)
        self._waiting_bytes += sum(len(window["data"]) for window in row["windows"])
        self._waiting_bytes += len(row.get("text") or b"") + 256
        self.rows += 1
        if self._waiting_bytes >= self._most:
            self.end_row_group()

    def end_row_group(self) -> None:
        """Write what was added since the last row group as another."""
        if self._waiting:
            table = pa.Table.from_pylist(self._waiting, self._spec.schema)
            self._file.write_table(table, row_group_size=len(self._waiting))
            self._held.append(self._count(self._waiting))
            self._waiting, self._waiting_bytes = [], 0

    def close(self) -> None:
        """Write the last row group and the footer."""
        if not self._file.is_open:
            return
        self.end_row_group()
        footer = [
            {split: [[*shape, n] for shape, n in sorted(held.items())] for split, held in g.items()}
            for g in self._held
        ]
        self._file.add_key_value_metadata({_SHAPES.decode(): json.dumps(footer)})
        self._file.close()

    def _count(self, rows: list[Row]) -> Held:
        counts: dict[str, Counter[Shape]] = {}
        for row in rows:
            shapes = counts.setdefault(row["split"], Counter())
            shapes.update(
                (window["frames"], *self._spec.rows_and_columns(window["shape"]))
                for window in row["windows"]
            )
        return {split: dict(held) for split, held in sorted(counts.items())}


def held(metadata: pq.FileMetaData) -> list[Held]:
    """Return what each row group holds, out of the footer of a file of :class:`Writer`."""
    groups = json.loads((metadata.metadata or {})[_SHAPES])
    return [
        {
            split: {(frames, height, width): n for frames, height, width, n in shapes}
            for split, shapes in group.items()
        }
        for group in groups
    ]
