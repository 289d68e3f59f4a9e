"""One row group of shards in memory, and the windows of each shape that it holds."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.sample import Sample, Shape


class RowGroup:
    """One row group in memory: the bulk stays as Arrow has it, the rest is Python values.

    Args:
        table: the row group.
        split: whose clips are items.
        kind: of the shards, ``"frames"`` or ``"tokens"``.
    """

    def __init__(self, table: pa.Table, split: str, kind: str) -> None:
        bulk = "pixels" if kind == "frames" else "windows"
        lists = ["text_ids"] if kind == "tokens" else []
        self._light = table.drop_columns([bulk, *lists]).to_pylist()
        self._bulk = _whole(table[bulk])
        self._kind, self._split = kind, split
        self._items: dict[Shape, tuple[list[int], list[int]]] = {}
        if kind == "tokens":
            windows = self._bulk.flatten()
            self._frames = windows.field("frames").to_numpy()
            self._starts = windows.field("start_frame").to_numpy()
            self._row_ends = np.asarray(self._bulk.value_lengths()).cumsum()
            self._sizes = windows.field("shape").flatten().to_numpy().reshape(-1, 3)[:, 1:]
            self._ids = _lists(windows.field("ids"))
            for row, text in zip(self._light, _lists(_whole(table["text_ids"])), strict=True):
                row["text_ids"] = text

    def sample(self, item: int, shape: Shape, offset: float | None, seed: int) -> Sample:
        """Return one window; `offset` in [0, 1) shifts a window of frames by part of its length."""
        rows, windows = self._items.get(shape) or self._places(shape)
        row, window = rows[item], windows[item]
        light = self._light[row]
        frames, height, width = shape
        if self._kind == "tokens":
            data = self._ids[window].reshape(-1, height, width)
            return self._as_sample(light, shape, seed, data, self._starts[window])
        slack = light["frames"] - frames
        spread = max(slack - (window * frames), 0) if offset is not None else 0
        start = window * frames + round((offset or 0.0) * min(spread, frames - 1))
        start = min(start, slack)
        part = np.frombuffer(
            self._bulk[row].as_buffer(),
            np.uint8,
            count=frames * height * width * 3,
            offset=start * height * width * 3,
        )
        return self._as_sample(light, shape, seed, part.reshape(frames, height, width, 3), start)

    @staticmethod
    def _as_sample(
        light: dict[str, Any], shape: Shape, seed: int, data: np.ndarray, start_frame: int
    ) -> Sample:
        about = {name: light[name] for name in ("clip_id", "caption", "fps")}
        text = light.get("text_ids")
        return Sample(data, text, shape, seed, start_frame=int(start_frame), **about)

    def _places(self, shape: Shape) -> tuple[list[int], list[int]]:
        """Return the row and the window of every item of a shape."""
        frames, *size = shape
        if self._kind == "tokens":
            fits = (self._frames == frames) & (self._sizes == size).all(axis=1)
            windows = np.flatnonzero(fits)
            rows = np.searchsorted(self._row_ends, windows, side="right")
        else:
            fit = [[row["height"], row["width"]] == size for row in self._light]
            counts = np.array([row["frames"] // frames for row in self._light]) * fit
            rows = np.repeat(np.arange(len(counts)), counts)
            windows = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        split = np.array([row["split"] == self._split for row in self._light], dtype=bool)[rows]
        self._items[shape] = rows[split].tolist(), windows[split].tolist()
        return self._items[shape]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without copying where it is one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _lists(array: pa.ListArray) -> list[NDArray[np.int32]]:
    """Return each list as a view of the array's memory."""
    values, ends = array.values.to_numpy(), array.offsets.to_numpy().tolist()
    return [values[start:end] for start, end in itertools.pairwise(ends)]
