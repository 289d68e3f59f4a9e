"""A deterministic loader: a batch is a function of (seed, step), so a run resumes exactly.

::

    shards ─footers─▶ buckets by frames ─permute row groups, items within some─▶ batch(step)

A **bucket** holds the items of one frame count, so that no batch pads. A stage's **mix** gives
each bucket a weight; which bucket a step draws from depends on the seed and the step alone.
Nothing is consumed in order, so there is no cursor to save beyond the step itself, and any number
of workers reads the same global batches. What there is stands in the footers: shuffling needs no
pass over the corpus, and memory holds the row groups that are being mixed.
"""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from data_prep import shards
from infra import artifact, storage
from infra.config import Section
from infra.errors import UserError
from infra.seeding import rng

SHUFFLE_ROW_GROUPS = 8  # of one length are mixed at once, and so kept in memory
_FOOTERS_AT_ONCE = 16


class Mix(Section):
    """How often a stage draws clips of one length."""

    frames: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0


Sample = dict[str, Any]
"""A row's columns, with ``pixels`` (T,H,W,3) uint8 or ``ids`` (T,H,W) int32 of one window. The
arrays are views of the shard's memory and may not be written to."""


@dataclass(frozen=True)
class _Group:
    """One row group of one file."""

    file: str
    number: int


class _Bucket:
    """The items of one frame count: which row groups have how many.

    Args:
        counts: items of each row group.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.groups = np.flatnonzero(counts)
        self.counts = counts[self.groups]
        self.size = int(self.counts.sum())
        self._epoch: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        self._pool: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def ordered(self, place: int) -> tuple[int, int]:
        """Return an item's row group, and its number there, in the files' order."""
        ends = np.cumsum(self.counts)
        at = int(np.searchsorted(ends, place, side="right"))
        return int(self.groups[at]), int(place - (ends[at] - self.counts[at]))

    def shuffled(
        self, places: NDArray[np.int64], *seed: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the row group and the number there of each place, counted over epochs.

        In each epoch the row groups are permuted, and the items of every `SHUFFLE_ROW_GROUPS` of
        them mixed.
        """
        groups, items = np.empty_like(places), np.empty_like(places)
        epochs, within = np.divmod(places, self.size)
        for epoch in np.unique(epochs).tolist():
            permuted, ends = self._order_of_groups(epoch, *seed)
            pools = np.searchsorted(ends, within, side="right") // SHUFFLE_ROW_GROUPS
            for pool in np.unique(pools[epochs == epoch]).tolist():
                mixed = slice(pool * SHUFFLE_ROW_GROUPS, (pool + 1) * SHUFFLE_ROW_GROUPS)
                counts = self.counts[permuted[mixed]]
                order = self._order_of_items(epoch, pool, int(counts.sum()), *seed)
                chosen = (epochs == epoch) & (pools == pool)
                item = order[within[chosen] - int(ends[mixed][0] - counts[0])]
                inner = np.cumsum(counts)
                at = np.searchsorted(inner, item, side="right")
                groups[chosen] = self.groups[permuted[mixed][at]]
                items[chosen] = item - (inner[at] - counts[at])
        return groups, items

    def _order_of_groups(
        self, epoch: int, *seed: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._epoch is None or self._epoch[0] != epoch:
            permuted = rng(*seed, epoch).permutation(len(self.groups))
            self._epoch = epoch, permuted, np.cumsum(self.counts[permuted])
        return self._epoch[1:]

    def _order_of_items(self, epoch: int, pool: int, count: int, *seed: Any) -> NDArray[np.int64]:
        if self._pool is None or self._pool[0] != (epoch, pool):
            self._pool = (epoch, pool), rng(*seed, epoch, "pool", pool).permutation(count)
        return self._pool[1]


class Loader:
    """Read samples of pixel or token shards.

    Args:
        uri: a finished artifact of kind ``pixels`` or ``tokens``.
        split: ``"train"`` or ``"validation"``.
        mix: the frame counts to draw, with their weights.
        steps: how many steps the stage has.
        batch_size: samples in a global batch.
        seed: decides the order.

    Raises:
        UserError: no such artifact, shards of another schema, or no clip of a length in the mix.
    """

    def __init__(
        self, uri: str, split: str, mix: Sequence[Mix], steps: int, batch_size: int, seed: int
    ) -> None:
        self.kind = artifact.read(uri, ("pixels", "tokens")).kind
        self.batch_size, self.seed, self._split = batch_size, seed, split
        self._groups: list[_Group] = []
        self._cache: OrderedDict[int, _Rows] = OrderedDict()
        self._buckets = self._index(uri, [entry.frames for entry in mix])
        empty = [frames for frames, bucket in self._buckets.items() if not bucket.size]
        if empty:
            raise UserError(f"{uri}: no {split} clip of {empty[0]} frames; see its summary.json")
        weights = np.array([entry.weight for entry in mix])
        lengths = np.array([entry.frames for entry in mix])
        chosen = rng(seed, "mix").choice(lengths, size=max(steps, 1), p=weights / weights.sum())
        self._chosen = chosen
        self._drawn = {f: np.cumsum(chosen == f) - (chosen == f) for f in self._buckets}

    def __len__(self) -> int:
        """The number of samples in all buckets."""
        return sum(bucket.size for bucket in self._buckets.values())

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """Return this rank's share of the batch of `step`: shares in rank order are the batch."""
        frames = int(self._chosen[step])
        first = int(self._drawn[frames][step]) * self.batch_size
        share = self.batch_size // world_size
        places = np.arange(rank * share, (rank + 1) * share, dtype=np.int64) + first
        bucket = self._buckets[frames]
        groups, items = bucket.shuffled(places, self.seed, "epoch", frames)
        samples = []
        for place, group, item in zip(
            places.tolist(), groups.tolist(), items.tolist(), strict=True
        ):
            offset = None
            if self.kind == "pixels":
                offset = rng(self.seed, "offset", frames, *divmod(place, bucket.size)).random()
            samples.append(self._rows(group).sample(item, frames, offset))
        return samples

    def first(self, count: int) -> list[Sample]:
        """Return up to `count` samples, evenly spread over the longest bucket, always the same."""
        frames = max(self._buckets)
        bucket = self._buckets[frames]
        places = np.linspace(0, bucket.size - 1, min(count, bucket.size)).round().astype(int)
        found = (bucket.ordered(place) for place in places)
        return [self._rows(group).sample(item, frames, None) for group, item in found]

    def _index(self, uri: str, frames: list[int]) -> dict[int, _Bucket]:
        files = storage.list_files(storage.join(uri, self.kind), (".parquet",))
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            held = list(pool.map(self._footer, files))
        for file, groups in zip(files, held, strict=True):
            self._groups += [_Group(file, number) for number in range(len(groups))]
        lengths = [group.get(self._split, {}) for groups in held for group in groups]
        return {
            f: _Bucket(np.array([self._items(group, f) for group in lengths], dtype=np.int64))
            for f in frames
        }

    def _items(self, lengths: dict[int, int], frames: int) -> int:
        if self.kind == "tokens":
            return lengths.get(frames, 0)
        return sum(count * (clip // frames) for clip, count in lengths.items())

    def _footer(self, file: str) -> list[shards.Lengths]:
        expected = shards.PIXELS if self.kind == "pixels" else shards.TOKENS
        with storage.open_input(file) as source:
            parquet = pq.ParquetFile(source)
            try:
                shards.check(parquet.schema_arrow, expected, file)
            except ValueError as error:
                raise UserError(str(error)) from None
            return shards.lengths(parquet)

    def _rows(self, group: int) -> "_Rows":
        if group not in self._cache:
            place = self._groups[group]
            with storage.open_input(place.file) as source:
                table = pq.ParquetFile(source).read_row_group(place.number)
            self._cache[group] = _Rows(table, self._split, self.kind)
            while len(self._cache) > (SHUFFLE_ROW_GROUPS + 1) * len(self._buckets):
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]


class _Rows:
    """One row group in memory: the bulk stays as Arrow has it, the rest is Python values."""

    def __init__(self, table: pa.Table, split: str, kind: str) -> None:
        bulk = "pixels" if kind == "pixels" else "windows"
        lists = ["text_ids"] if kind == "tokens" else []
        self._light = table.drop_columns([bulk, *lists]).to_pylist()
        self._bulk = _whole(table[bulk])
        self._kind, self._split = kind, split
        self._items: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        if kind == "tokens":
            windows = self._bulk.flatten()
            self._frames = windows.field("frames").to_numpy()
            self._row_ends = np.asarray(self._bulk.value_lengths()).cumsum()
            self._shapes = windows.field("shape").to_pylist()
            self._ids = _lists(windows.field("ids"))
            for row, text in zip(self._light, _lists(_whole(table["text_ids"])), strict=True):
                row["text_ids"] = text

    def sample(self, item: int, frames: int, offset: float | None) -> Sample:
        """Return one window; `offset` in [0, 1) shifts a window of pixels by part of its length."""
        rows, windows = self._places(frames)
        row, window = int(rows[item]), int(windows[item])
        light = self._light[row]
        if self._kind == "tokens":
            return {**light, "ids": self._ids[window].reshape(self._shapes[window])}
        slack = light["frames"] - frames
        spread = max(slack - (window * frames), 0) if offset is not None else 0
        start = window * frames + round((offset or 0.0) * min(spread, frames - 1))
        start = min(start, slack)
        height, width = light["height"], light["width"]
        part = np.frombuffer(
            self._bulk[row].as_buffer(),
            np.uint8,
            count=frames * height * width * 3,
            offset=start * height * width * 3,
        )
        pixels = part.reshape(frames, height, width, 3)
        return {**light, "pixels": pixels, "start_frame": start}

    def _places(self, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the row and the window of every item of a length."""
        if frames not in self._items:
            if self._kind == "tokens":
                windows = np.flatnonzero(self._frames == frames)
                rows = np.searchsorted(self._row_ends, windows, side="right")
            else:
                counts = np.array([row["frames"] // frames for row in self._light], dtype=np.int64)
                rows = np.repeat(np.arange(len(counts)), counts)
                windows = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            ours = np.array([row["split"] == self._split for row in self._light], dtype=bool)[rows]
            self._items[frames] = rows[ours], windows[ours]
        return self._items[frames]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without copying where it is one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _lists(array: pa.ListArray) -> list[NDArray[np.int32]]:
    """Return each list as a view of the array's memory."""
    values, ends = array.values.to_numpy(), array.offsets.to_numpy().tolist()
    return [values[start:end] for start, end in itertools.pairwise(ends)]
