"""Shots: where one begins, found by a detector that is fed one frame at a time."""

from typing import Annotated, Any, Literal, Protocol

import cv2
import numpy as np
from pydantic import BeforeValidator, Field
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    FrameTimecode,
    HashDetector,
    SceneDetector,
)

from data_prep.stitching import StitchConfig, Stitcher
from data_prep.transnet import TransnetConfig, TransnetFinder
from infra.config import Section


class AdaptiveConfig(Section):
    """A change that stands out from those around it; the defaults are PySceneDetect's own."""

    kind: Literal["adaptive"] = "adaptive"
    ratio: Annotated[float, Field(gt=0)] = 3.0
    """How many times a frame's change must exceed that of its neighbours."""
    window_frames: Annotated[int, Field(ge=1)] = 2
    """Neighbours on each side."""
    min_content: Annotated[float, Field(ge=0)] = 15.0
    """The least change (HSV, 0 to 255) that can be a cut."""
    min_scene_frames: Annotated[int, Field(ge=1)] = 15
    """The least distance between two cuts."""


class ContentConfig(Section):
    """A change above a fixed limit; the defaults are PySceneDetect's own."""

    kind: Literal["content"] = "content"
    threshold: Annotated[float, Field(ge=0, le=255)] = 27.0
    """The least change (HSV, 0 to 255) that is a cut."""
    min_scene_frames: Annotated[int, Field(ge=1)] = 15
    """Cuts that are nearer to each other are merged into the last of them."""


class HashConfig(Section):
    """A change of the picture's perceptual hash; the defaults are PySceneDetect's own."""

    kind: Literal["hash"] = "hash"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.35
    """The least share of bits in which two frames must differ."""
    side_bits: Annotated[int, Field(ge=2, le=64)] = 8
    """The hash has the square of this many bits."""
    lowpass: Annotated[int, Field(ge=1, le=16)] = 2
    """Frequencies left out: 2 keeps the lower half of them, 4 a quarter."""
    min_scene_frames: Annotated[int, Field(ge=1)] = 15
    """The least distance between two cuts."""


def _kind_stated(value: Any) -> Any:
    return {"kind": "adaptive", **value} if isinstance(value, dict) else value


AnyDetector = AdaptiveConfig | ContentConfig | HashConfig | TransnetConfig
DetectorConfig = Annotated[
    Annotated[AnyDetector, Field(discriminator="kind")], BeforeValidator(_kind_stated)
]


class ScenesConfig(Section):
    """Where shots begin."""

    detector: DetectorConfig = Field(default_factory=AdaptiveConfig)
    """What finds cuts: kind `adaptive`, `content`, `hash` or `transnet`, each with its keys."""
    stitch: StitchConfig | None = None
    """Join shots again that were cut in error; None leaves every cut."""


class _Finder(Protocol):
    lag_frames: int

    def push(self, frame_HWC: np.ndarray) -> list[int]: ...

    def finish(self) -> list[int]: ...


class _SceneDetect:
    """A detector of PySceneDetect."""

    def __init__(self, detector: SceneDetector, fps: float) -> None:
        self._detector, self._fps, self._frame = detector, fps, 0
        self.lag_frames = detector.event_buffer_length

    def push(self, frame_HWC: np.ndarray) -> list[int]:
        bgr = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
        found = self._detector.process_frame(FrameTimecode(self._frame, self._fps), bgr)
        self._frame += 1
        return [cut.frame_num for cut in found]

    def finish(self) -> list[int]:
        found = self._detector.post_process(FrameTimecode(max(0, self._frame - 1), self._fps))
        return [cut.frame_num for cut in found]


class CutFinder:
    """Finds cuts in a stream of frames; a cut becomes known some frames later, in order.

    Args:
        fps: frames per second of the film, above 0.
        config: the detector and its settings.
    """

    def __init__(self, fps: float, config: ScenesConfig) -> None:
        if not fps > 0:
            raise ValueError(f"fps {fps}: allowed is above 0")
        self._finder = _finder(config.detector, fps)
        lag_frames = self._finder.lag_frames
        self._stitcher = Stitcher(config.stitch, lag_frames) if config.stitch else None

    def push(self, frame_HWC: np.ndarray) -> list[int]:
        """Take the next uint8 RGB frame; return the frames now found to begin a shot."""
        cuts = self._finder.push(frame_HWC)
        return cuts if self._stitcher is None else self._stitcher.push(frame_HWC, cuts)

    def finish(self) -> list[int]:
        """Return the cuts that only the film's end makes known."""
        cuts = self._finder.finish()
        return cuts if self._stitcher is None else self._stitcher.finish(cuts)


def _finder(config: AnyDetector, fps: float) -> _Finder:
    match config:
        case AdaptiveConfig():
            detector = AdaptiveDetector(
                adaptive_threshold=config.ratio,
                min_scene_len=config.min_scene_frames,
                window_width=config.window_frames,
                min_content_val=config.min_content,
            )
        case ContentConfig():
            detector = ContentDetector(
                threshold=config.threshold, min_scene_len=config.min_scene_frames
            )
        case HashConfig():
            detector = HashDetector(
                threshold=config.threshold,
                size=config.side_bits,
                lowpass=config.lowpass,
                min_scene_len=config.min_scene_frames,
            )
        case TransnetConfig():
            return TransnetFinder(config)
    return _SceneDetect(detector, fps)
