"""Windows of clips through a codec: in batches, and each stretch of frames only once.

::

    pieces of clips ─▶ windows by their first frame ─▶ batches of one shape ─▶ codec ─▶ rows

Where the codec is causal, the latents of a clip's first frames are those of these frames alone, so
windows that begin at one frame are cut from the encoding of the longest of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from data_prep import shards
from data_prep.sampling import WindowConfig
from data_prep.shards import Row
from models.codec import CodecSpec, VideoCodec
from models.pixels import to_pixels
from ray_jobs.sharding.source import About, Failure, Piece

WAITING_BYTES = 256 << 20
"""Of frames that wait for others of their shape; then all are encoded in smaller batches."""


@dataclass
class _Row:
    """A row that is being made: of a whole clip, or of a stretch of a very long one."""

    about: About
    text: bytes | None
    begin_frame: int = 0
    """Where in the clip it begins."""
    end_frame: int | None = None
    """Where it ends; None while windows may be added."""
    windows: list[dict[str, Any]] = field(default_factory=list)
    """Their ``data`` is missing until they are encoded."""
    unencoded: int = 0
    size_bytes: int = 0

    def as_row(self) -> Row:
        assert self.end_frame is not None
        frames = self.end_frame - self.begin_frame
        return {**self.about, "frames": frames, "text": self.text, "windows": self.windows}


@dataclass
class _Clip:
    """The clip whose frames are coming."""

    row: _Row
    frames_THWC: np.ndarray
    first_frame: int = 0
    """Where in the clip `frames_THWC` begins."""
    next_start: int = 0
    """No window begins before it any more."""

    @property
    def end_frame(self) -> int:
        return self.first_frame + len(self.frames_THWC)


@dataclass(frozen=True)
class _Stretch:
    """Frames to encode, and the windows of a row that are cut from the beginning of the result."""

    frames_THWC: np.ndarray
    row: _Row
    windows: list[dict[str, Any]]


class WindowEncoder:
    """Turns the pieces of a part's clips into rows, in their order.

    Args:
        codec: encodes; on `device`.
        spec: of the codec.
        windows: which to cut.
        batch_size: windows of one shape that are encoded at once.
        text: returns the bytes of a caption's text.
        device: of the codec.
    """

    def __init__(
        self,
        codec: VideoCodec,
        spec: CodecSpec,
        windows: Sequence[WindowConfig],
        batch_size: int,
        text: Callable[[str | None], bytes],
        device: torch.device,
    ) -> None:
        self._codec, self._spec, self._device = codec, spec, device
        self._windows, self._batch_size, self._text = windows, batch_size, text
        self._rows: deque[_Row | Failure] = deque()
        self._clip: _Clip | None = None
        self._waiting: dict[tuple[int, ...], list[_Stretch]] = {}
        self._waiting_bytes = 0

    def rows(self, pieces: Iterable[Piece | Failure]) -> Iterator[Row | Failure]:
        """Yield a row a clip (several of one whose windows are many), and what failed."""
        for piece in pieces:
            if isinstance(piece, Failure):
                self._end_clip()  # its windows so far stay
                self._rows.append(piece)
            else:
                self._take(piece)
            yield from self._ready()
        self._encode_all()
        yield from self._ready()

    def _take(self, piece: Piece) -> None:
        clip = self._clip
        if clip is None:
            row = _Row(piece.about, self._text(piece.about["caption"]))
            self._rows.append(row)
            clip = self._clip = _Clip(row, piece.frames_THWC)
        else:
            clip.frames_THWC = np.concatenate([clip.frames_THWC, piece.frames_THWC])
        self._cut(clip, piece.is_last)
        if piece.is_last:
            self._end_clip()
        else:  # let go of frames that no window to come needs
            keep = min(self._next_start(clip), clip.end_frame) - clip.first_frame
            clip.frames_THWC, clip.first_frame = clip.frames_THWC[keep:], clip.first_frame + keep

    def _end_clip(self) -> None:
        if self._clip is not None:
            self._cut(self._clip, is_whole=True)
            self._clip.row.end_frame = self._clip.end_frame
            self._clip = None

    def _cut(self, clip: _Clip, is_whole: bool) -> None:
        """Collect the windows whose frames are there, from one beginning to the next."""
        while (start := self._next_start(clip)) < clip.end_frame:
            begin_here = {w.frames for w in self._windows if start % w.stride == 0}
            if not is_whole and start + max(begin_here) > clip.end_frame:
                return  # the longest may still fit
            clip.next_start = start + 1
            held = sorted((n for n in begin_here if start + n <= clip.end_frame), reverse=True)
            windows = [{"frames": n, "start_frame": start} for n in held]
            if windows and self._spec.is_causal:
                self._add(clip, windows)
            else:
                for window in windows:
                    self._add(clip, [window])

    def _next_start(self, clip: _Clip) -> int:
        """Return the next frame at which windows begin, in the clip or after it."""
        return min(-(-clip.next_start // w.stride) * w.stride for w in self._windows)

    def _add(self, clip: _Clip, windows: list[dict[str, Any]]) -> None:
        """Let windows that begin at one frame wait for a batch; the longest comes first."""
        at = windows[0]["start_frame"] - clip.first_frame
        frames = clip.frames_THWC[at : at + windows[0]["frames"]]
        row = clip.row
        row.windows += windows
        row.unencoded += len(windows)
        alike = self._waiting.setdefault(frames.shape, [])
        alike.append(_Stretch(frames, row, windows))
        self._waiting_bytes += frames.nbytes
        if len(alike) == self._batch_size:
            self._encode(frames.shape)
        elif self._waiting_bytes >= WAITING_BYTES:
            self._encode_all()
        if row.size_bytes >= shards.PIECE_BYTES:
            row.end_frame = clip.next_start
            clip.row = _Row(row.about, row.text, begin_frame=clip.next_start)
            self._rows.append(clip.row)

    def _encode_all(self) -> None:
        for shape in list(self._waiting):
            self._encode(shape)

    @torch.inference_mode()
    def _encode(self, shape: tuple[int, ...]) -> None:
        stretches = self._waiting.pop(shape)
        frames_BTHWC = np.stack([stretch.frames_THWC for stretch in stretches])
        latents = self._codec.encode(to_pixels(frames_BTHWC, self._device)).cpu().numpy()
        for stretch, one in zip(stretches, latents, strict=True):
            self._waiting_bytes -= stretch.frames_THWC.nbytes
            for window in stretch.windows:
                count = self._spec.latents_of_frames(window["frames"])
                data = one[..., :count, :, :].astype(self._spec.latent.dtype)
                window["shape"], window["data"] = list(data.shape), data.tobytes()
                stretch.row.size_bytes += data.nbytes
            stretch.row.unencoded -= len(stretch.windows)

    def _ready(self) -> Iterator[Row | Failure]:
        """Yield from the front what is whole and encoded."""
        while self._rows:
            row = self._rows[0]
            if isinstance(row, _Row):
                if row.end_frame is None or row.unencoded:
                    return
                yield row.as_row()
            else:
                yield row
            self._rows.popleft()
