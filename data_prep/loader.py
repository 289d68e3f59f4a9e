"""A deterministic loader: a batch is a function of (seed, step), so a run resumes exactly.

::

    shards ─index (light columns)─▶ buckets by frames ─permute row groups, items─▶ batch(step)

A **bucket** holds the items of one frame count, so that no batch pads. A stage's **mix** gives
each bucket a weight; which bucket a step draws from depends on the seed and the step alone.
Nothing is consumed in order, so there is no cursor to save beyond the step itself, and any number
of workers reads the same global batches.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from data_prep import shards
from infra import artifact, storage
from infra.config import Section
from infra.errors import UserError
from infra.seeding import rng

SHUFFLE_ROW_GROUPS = 16  # how many row groups are mixed at once, and so kept in memory


class Mix(Section):
    """How often a stage draws clips of one length."""

    frames: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True)
class Item:
    """One training sample's place: which row of which row group, which window of its clip."""

    group: int
    row: int
    window: int


Sample = dict[str, Any]
"""A row's columns, with ``pixels`` (T,H,W,3) uint8 or ``ids`` (T,H,W) int32 of one window."""


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
        self.batch_size, self._seed = batch_size, seed
        self._files: list[tuple[str, int]] = []  # row group number -> (file, row group in file)
        self._cache: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._buckets: dict[int, list[Item]] = {entry.frames: [] for entry in mix}
        self._index(uri, split)
        empty = [frames for frames, items in self._buckets.items() if not items]
        if empty:
            raise UserError(f"{uri}: no {split} clip of {empty[0]} frames; see its summary.json")
        weights = np.array([entry.weight for entry in mix])
        lengths = np.array([entry.frames for entry in mix])
        chosen = rng(seed, "mix").choice(lengths, size=max(steps, 1), p=weights / weights.sum())
        self._chosen = chosen
        self._drawn = {f: np.cumsum(chosen == f) - (chosen == f) for f in self._buckets}
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        """The number of samples in all buckets."""
        return sum(len(items) for items in self._buckets.values())

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """Return this rank's share of the batch of `step`: shares in rank order are the batch."""
        frames = int(self._chosen[step])
        first = int(self._drawn[frames][step]) * self.batch_size
        share = self.batch_size // world_size
        places = range(rank * share, (rank + 1) * share)
        return [self._sample(frames, first + place) for place in places]

    def first(self, count: int) -> list[Sample]:
        """Return up to `count` samples, evenly spread over the longest bucket, always the same."""
        frames = max(self._buckets)
        items = self._buckets[frames]
        places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
        return [self._read(items[place], frames, offset=None) for place in places]

    def _sample(self, frames: int, place: int) -> Sample:
        epoch, within = divmod(place, len(self._buckets[frames]))
        item = self._buckets[frames][self._order(frames, epoch)[within]]
        offset = rng(self._seed, "offset", frames, epoch, within).random()
        return self._read(item, frames, offset)

    def _order(self, frames: int, epoch: int) -> np.ndarray:
        """Return an epoch's order: row groups permuted, then items within a few of them."""
        if (frames, epoch) not in self._orders:
            random = rng(self._seed, "epoch", frames, epoch)
            by_group: dict[int, list[int]] = {}
            for place, item in enumerate(self._buckets[frames]):
                by_group.setdefault(item.group, []).append(place)
            groups = [by_group[g] for g in random.permutation(sorted(by_group))]
            order: list[int] = []
            for start in range(0, len(groups), SHUFFLE_ROW_GROUPS):
                near = [p for group in groups[start : start + SHUFFLE_ROW_GROUPS] for p in group]
                order += list(random.permutation(near))
            stale = [key for key in self._orders if key[0] == frames and key[1] < epoch - 1]
            for key in stale:
                del self._orders[key]
            self._orders[frames, epoch] = np.array(order)
        return self._orders[frames, epoch]

    def _index(self, uri: str, split: str) -> None:
        expected = shards.PIXELS if self.kind == "pixels" else shards.TOKENS
        light = (
            ["split", "frames"]
            if self.kind == "pixels"
            else ["split", "windows.list.element.frames"]
        )
        for file in storage.list_files(storage.join(uri, self.kind), (".parquet",)):
            with storage.open_input(file) as source:
                parquet = pq.ParquetFile(source)
                try:
                    shards.check(parquet.schema_arrow, expected, file)
                except ValueError as error:
                    raise UserError(str(error)) from None
                for number in range(parquet.num_row_groups):
                    group = len(self._files)
                    self._files.append((file, number))
                    rows = parquet.read_row_group(number, columns=light).to_pylist()
                    for row, columns in enumerate(rows):
                        if columns["split"] == split:
                            self._add(group, row, columns)

    def _add(self, group: int, row: int, columns: dict[str, Any]) -> None:
        if self.kind == "pixels":
            for frames, items in self._buckets.items():
                items += [Item(group, row, w) for w in range(columns["frames"] // frames)]
            return
        for number, window in enumerate(columns["windows"]):
            if window["frames"] in self._buckets:
                self._buckets[window["frames"]].append(Item(group, row, number))

    def _rows(self, group: int) -> list[dict[str, Any]]:
        if group not in self._cache:
            file, number = self._files[group]
            with storage.open_input(file) as source:
                self._cache[group] = pq.ParquetFile(source).read_row_group(number).to_pylist()
            while len(self._cache) > 2 * SHUFFLE_ROW_GROUPS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]

    def _read(self, item: Item, frames: int, offset: float | None) -> Sample:
        row = self._rows(item.group)[item.row]
        if self.kind == "tokens":
            window = row["windows"][item.window]
            ids = np.array(window["ids"], dtype=np.int32).reshape(window["shape"])
            return {**row, "ids": ids, "windows": None}
        slack = row["frames"] - frames
        spread = max(slack - (item.window * frames), 0) if offset is not None else 0
        start = item.window * frames + round((offset or 0.0) * min(spread, frames - 1))
        start = min(start, slack)
        size = row["height"] * row["width"] * 3
        part = memoryview(row["pixels"])[start * size : (start + frames) * size]
        pixels = np.frombuffer(part, np.uint8).reshape(frames, row["height"], row["width"], 3)
        return {**row, "pixels": pixels, "start_frame": start}
