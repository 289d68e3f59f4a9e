"""A deterministic loader: a batch is a function of (seed, step), so a run resumes exactly.

::

    index ─▶ buckets by shape ─permute row groups, items within some─▶ batch(step)

A **bucket** holds the items of one frame count, height and width, so that no batch pads. A stage's
**mix** gives each frame count a weight, which its buckets share by their sizes; which bucket a step
draws from depends on the seed and the step alone.
Nothing is consumed in order, so there is no cursor to save beyond the step itself, and any number
of workers reads the same global batches. What there is stands in the index: shuffling needs no
pass over the corpus, a row group is read in one request, and memory holds those that are being
mixed.
"""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_prep.index import Index
from data_prep.row_group import RowGroup
from data_prep.sample import Sample, Shape
from infra.config import Section
from infra.errors import UserError
from infra.seeding import derive, rng

SHUFFLE_ROW_GROUPS = 8  # of one shape are mixed at once, and so kept in memory
_ROW_GROUPS_AT_ONCE = 4


class Mix(Section):
    """How often a stage draws clips of one length."""

    frames: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0


class _Bucket:
    """The items of one shape: which row groups have how many.

    Args:
        shape: of each.
        groups: the numbers of the row groups that have some, rising.
        counts: items of each of them.
    """

    def __init__(self, shape: Shape, groups: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self.shape, self.groups, self.counts = shape, groups, counts
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
    """Reads samples of shards of frames, tokens or latents.

    Args:
        uri: a finished artifact of kind ``frames``, ``tokens`` or ``latents``.
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
        self._index = Index(uri)
        self.kind = self._index.spec.kind
        self.batch_size, self.seed, self._split = batch_size, seed, split
        self._cache: OrderedDict[int, RowGroup] = OrderedDict()
        self._readers = ThreadPoolExecutor(_ROW_GROUPS_AT_ONCE)
        self._buckets = self._find({entry.frames for entry in mix})
        for entry in mix:
            if not self._of_length(entry.frames):
                raise UserError(
                    f"{uri}: no {split} clip of {entry.frames} frames; see its summary.json"
                )
        self._chosen = self._choose(mix, max(steps, 1))
        self._drawn = np.empty_like(self._chosen)
        for number in range(len(self._buckets)):
            steps_of = self._chosen == number
            self._drawn[steps_of] = np.arange(np.count_nonzero(steps_of))

    @property
    def shapes(self) -> list[Shape]:
        """The shapes that a batch may have: frames, and rows and columns of pixels or latents."""
        return [bucket.shape for bucket in self._buckets]

    def __len__(self) -> int:
        """The number of samples in all buckets."""
        return sum(bucket.size for bucket in self._buckets)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """Return this rank's share of the batch of `step`: shares in rank order are the batch."""
        bucket = self._buckets[self._chosen[step]]
        first = int(self._drawn[step]) * self.batch_size
        share = self.batch_size // world_size
        places = np.arange(rank * share, (rank + 1) * share, dtype=np.int64) + first
        groups, items = bucket.shuffled(places, self.seed, "epoch", *bucket.shape)
        held = self._rows(groups)
        return [
            held[group].sample(
                item,
                bucket.shape,
                self._offset(bucket, place),
                derive(self.seed, "sample", step, place - first),
            )
            for place, group, item in zip(
                places.tolist(), groups.tolist(), items.tolist(), strict=True
            )
        ]

    def _offset(self, bucket: _Bucket, place: int) -> float | None:
        """Return how far a window of frames is shifted; codes stay where they were cut."""
        if self.kind != "frames":
            return None
        return rng(self.seed, "offset", *bucket.shape, *divmod(place, bucket.size)).random()

    def first(self, count: int) -> list[Sample]:
        """Return up to `count` samples of the most frames, evenly spread, always the same."""
        longest = self._of_length(max(bucket.shape[0] for bucket in self._buckets))
        ends = np.cumsum([self._buckets[number].size for number in longest])
        samples = []
        for place in np.linspace(0, ends[-1] - 1, min(count, int(ends[-1]))).round().astype(int):
            at = int(np.searchsorted(ends, place, side="right"))
            bucket = self._buckets[longest[at]]
            group, item = bucket.ordered(int(place - (ends[at] - bucket.size)))
            rows = self._rows(np.array([group]))[group]
            seed = derive(self.seed, "held out", len(samples))
            samples.append(rows.sample(item, bucket.shape, None, seed))
        return samples

    def _of_length(self, frames: int) -> list[int]:
        return [n for n, bucket in enumerate(self._buckets) if bucket.shape[0] == frames]

    def _choose(self, mix: Sequence[Mix], steps: int) -> NDArray[np.int64]:
        """Return the bucket of each step: a length by the mix, then one of its shapes."""
        if len(self._buckets) == 1:
            return np.zeros(steps, np.int64)
        weights = np.array([entry.weight for entry in mix])
        entries = rng(self.seed, "mix").choice(len(mix), size=steps, p=weights / weights.sum())
        places = rng(self.seed, "shape").random(steps)
        chosen = np.empty(steps, np.int64)
        for number, entry in enumerate(mix):
            buckets = np.array(self._of_length(entry.frames))
            ends = np.cumsum([self._buckets[bucket].size for bucket in buckets])
            ours = entries == number
            chosen[ours] = buckets[np.searchsorted(ends, places[ours] * ends[-1], side="right")]
        return chosen

    def _find(self, lengths: set[int]) -> list[_Bucket]:
        """Return the buckets of these lengths, by shape."""
        found: dict[Shape, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        for held, (groups, counts) in self._index.counts(self._split).items():
            for shape, items in self._items(held, lengths):
                found.setdefault(shape, []).append((groups, counts * items))
        buckets = []
        for shape, parts in sorted(found.items()):
            groups, at = np.unique(np.concatenate([g for g, _ in parts]), return_inverse=True)
            items = np.concatenate([n for _, n in parts])
            counts = np.zeros(len(groups), np.int64)
            np.add.at(counts, at, items)
            buckets.append(_Bucket(shape, groups, counts))
        return buckets

    def _items(self, held: Shape, lengths: set[int]) -> list[tuple[Shape, int]]:
        """Return the shapes that a window serves, and how many samples of each it gives."""
        frames, height, width = held
        if self.kind == "frames":  # cut where a batch wants them
            return [((f, height, width), frames // f) for f in lengths if frames >= f]
        return [(held, 1)] if frames in lengths else []

    def _rows(self, groups: NDArray[np.int64]) -> dict[int, RowGroup]:
        """Return row groups by their numbers, of which some may have to be read first."""
        wanted = list(dict.fromkeys(groups.tolist()))  # in the order of their first items
        missing = [group for group in wanted if group not in self._cache]
        self._cache.update(zip(missing, self._readers.map(self._read, missing), strict=True))
        for group in wanted:
            self._cache.move_to_end(group)
        held = {group: self._cache[group] for group in wanted}
        while len(self._cache) > (SHUFFLE_ROW_GROUPS + 1) * len(self._buckets):
            self._cache.popitem(last=False)
        return held

    def _read(self, group: int) -> RowGroup:
        return RowGroup(self._index.read(group), self._split, self._index.spec)
