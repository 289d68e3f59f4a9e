"""One row group of shards in memory, and the windows of each shape that it holds."""

import numpy as np
import pyarrow as pa

from data_prep.sample import Sample, Shape
from data_prep.shards import ShardSpec


class RowGroup:
    """One row group in memory: the bulk stays as Arrow has it, the rest is Python values.

    Args:
        table: the row group.
        split: whose clips are samples.
        spec: of the shards.
    """

    def __init__(self, table: pa.Table, split: str, spec: ShardSpec) -> None:
        self._spec, self._split = spec, split
        columns = ["clip_id", "caption", "fps", "split"]
        self._light = table.select(columns).to_pylist()
        self._text = _whole(table["text"])
        lists = _whole(table["windows"])
        windows = lists.flatten()
        self._row_ends = np.asarray(lists.value_lengths()).cumsum()
        self._frames = windows.field("frames").to_numpy()
        self._starts = windows.field("start_frame").to_numpy()
        self._shapes = windows.field("shape").to_pylist()
        self._data = windows.field("data")
        sizes = [spec.rows_and_columns(shape) for shape in self._shapes]
        self._sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self._items: dict[Shape, tuple[list[int], list[int]]] = {}

    def sample(self, item: int, shape: Shape, offset: float | None, seed: int) -> Sample:
        """Return one window; `offset` in [0, 1) shifts a window of frames by part of its length."""
        windows, parts = self._items.get(shape) or self._places(shape)
        window, part = windows[item], parts[item]
        row = int(np.searchsorted(self._row_ends, window, side="right"))
        data = self._spec.window(self._data[window].as_buffer(), self._shapes[window])
        start = 0
        if self._spec.kind == "frames":
            frames, slack = shape[0], len(data) - shape[0]
            spread = max(slack - part * frames, 0) if offset is not None else 0
            start = min(part * frames + round((offset or 0.0) * min(spread, frames - 1)), slack)
            data = data[start : start + frames]
        light, text = self._light[row], self._text[row]
        return Sample(
            data,
            self._spec.text_array(text.as_buffer() if text.is_valid else None),
            shape,
            seed,
            clip_id=light["clip_id"],
            caption=light["caption"],
            fps=light["fps"],
            start_frame=int(self._starts[window]) + start,
        )

    def _places(self, shape: Shape) -> tuple[list[int], list[int]]:
        """Return the window of every item of a shape, and which part of it that is.

        Frames are cut where a batch wants them, so that a window of them has several items.
        """
        frames, *size = shape
        if self._spec.kind == "frames":
            each = self._frames // frames
        else:
            each = (self._frames == frames).astype(np.int64)
        each = each * (self._sizes == size).all(axis=1)
        splits = np.array([row["split"] == self._split for row in self._light], dtype=bool)
        rows = np.searchsorted(self._row_ends, np.arange(len(each)), side="right")
        each = each * splits[rows] if len(each) else each
        windows = np.repeat(np.arange(len(each)), each)
        parts = np.arange(len(windows)) - np.repeat(np.cumsum(each) - each, each)
        self._items[shape] = windows.tolist(), parts.tolist()
        return self._items[shape]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without copying where it is one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
