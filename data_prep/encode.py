"""Writing frames as H.264 MP4 files that every browser plays."""

import os
import uuid
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import av
import cv2
import numpy as np


class Mp4Writer:
    """Streams frames into an MP4 (H.264, 4:2:0, index first); the file appears when it is whole.

    Args:
        path: a local file; its directory must exist.
        fps: frames per second, above 0.
        width: pixels, even.
        height: pixels, even.
        crf: x264's constant quality; 18 looks lossless, 0 is nearly so.

    Raises:
        ValueError: a size or rate that H.264 in 4:2:0 cannot hold.
    """

    def __init__(
        self, path: str | Path, fps: float, width: int, height: int, crf: int = 18
    ) -> None:
        if width < 2 or height < 2 or width % 2 or height % 2 or not fps > 0:
            raise ValueError(
                f"video {width}x{height} at {fps} fps: allowed are even sizes from 2 and fps > 0"
            )
        self._path = Path(path)
        self._size = (height, width, 3)
        self._partial = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}.partial")
        self._container = av.open(
            str(self._partial), "w", format="mp4", options={"movflags": "+faststart"}
        )
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        # x264's macroblock tree reads memory that nobody wrote where frames are small: the same
        # frames then give other bytes now and then
        self._stream.options = {"crf": str(crf), "preset": "medium", "x264-params": "mbtree=0"}
        self.frames = 0

    def __enter__(self) -> Self:
        return self

    def write(self, frame_HWC: np.ndarray) -> None:
        """Add one uint8 RGB frame of the writer's height and width."""
        if frame_HWC.shape != self._size or frame_HWC.dtype != np.uint8:
            raise ValueError(
                f"frame {frame_HWC.shape} {frame_HWC.dtype}: allowed is {self._size} uint8"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        frame.pts = self.frames
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.frames:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                if not self.frames:
                    raise ValueError(f"{self._path}: a video needs at least one frame")
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)


def enlarge(
    frames_THWC: np.ndarray, factor: int, kind: Literal["nearest", "bicubic"] = "nearest"
) -> np.ndarray:
    """Return uint8 frames enlarged by a whole factor, for viewing.

    Args:
        frames_THWC: uint8 frames.
        factor: at least 1.
        kind: ``"nearest"`` shows the pixels as they are, ``"bicubic"`` smooths them.
    """
    if factor < 1:
        raise ValueError(f"factor {factor}: allowed is at least 1")
    how = {"nearest": cv2.INTER_NEAREST, "bicubic": cv2.INTER_CUBIC}[kind]
    _, height, width, _ = frames_THWC.shape
    size = (width * factor, height * factor)
    return np.stack([cv2.resize(frame, size, interpolation=how) for frame in frames_THWC])
