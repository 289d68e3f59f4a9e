"""Encoding: what was written comes back, and a file is whole or not there."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.decode import Decoder
from data_prep.encode import Mp4Writer, enlarge


def test_frames_come_back(tmp_path: Path) -> None:
    ramp = np.linspace(0, 200, 64).astype(np.uint8)
    frames = np.stack([np.broadcast_to(ramp[:, None], (64, 64)) + t for t in range(20)])
    frames_THWC = np.repeat(frames[..., None], 3, axis=3).astype(np.uint8)
    with Mp4Writer(tmp_path / "a.mp4", 8, 64, 64) as writer:
        for frame in frames_THWC:
            writer.write(frame)
        assert not (tmp_path / "a.mp4").exists()
    with Decoder(tmp_path / "a.mp4") as decoder:
        assert decoder.probe().fps == 8
        back = decoder.span(0.0, 2.5, 8, 64, 64)
    assert np.abs(back.astype(int) - frames_THWC).mean() < 3
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def write(*heights: int) -> None:
        with Mp4Writer(tmp_path / "a.mp4", 8, 64, 64) as writer:
            for height in heights:
                writer.write(np.zeros((height, 64, 3), np.uint8))

    with pytest.raises(ValueError, match="allowed is"):
        write(64, 32)
    with pytest.raises(ValueError, match="at least one"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even sizes"):
        Mp4Writer(tmp_path / "a.mp4", 8, 63, 64)


def test_enlarge_repeats_pixels() -> None:
    frames = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    large = enlarge(frames, 4)
    assert large.shape == (2, 8, 12, 3)
    np.testing.assert_array_equal(large[:, ::4, ::4], frames)
    assert enlarge(frames, 2, "bicubic").shape == (2, 4, 6, 3)
    with pytest.raises(ValueError, match="factor 0"):
        enlarge(frames, 0)


def test_the_same_frames_make_the_same_bytes(tmp_path: Path):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (21, 4, 4, 3)).astype(np.uint8)
    frames = [cv2.resize(frame, (32, 32), interpolation=cv2.INTER_CUBIC) for frame in coarse]
    made = set()
    for number in range(40):
        with Mp4Writer(tmp_path / f"{number}.mp4", 12, 32, 32) as movie:
            for frame in frames:
                movie.write(frame)
        made.add((tmp_path / f"{number}.mp4").read_bytes())
    assert len(made) == 1
