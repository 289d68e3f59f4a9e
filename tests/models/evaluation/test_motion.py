"""Motion and the window curves."""

import numpy as np
import pytest

from models.evaluation.motion import motion_energy, per_window


def still(frames: int, value: int = 100) -> np.ndarray:
    return np.full((frames, 8, 8, 3), value, dtype=np.uint8)


def test_motion_of_a_still_and_of_a_flicker() -> None:
    assert motion_energy(still(4)) == 0
    flicker = still(4)
    flicker[1::2] = 90  # falls and rises alike: uint8 must not wrap around
    assert motion_energy(flicker) == pytest.approx(10)


def test_windows_see_the_jump_the_blur_and_the_drift() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    red = still(5)
    red[..., 0] = 160
    curves = per_window(np.concatenate([noise, still(4), red]), fps=4, window_s=1)
    assert curves.start_s == [0, 1, 2, 3]
    assert curves.motion[0] > 50
    assert curves.motion[2] == pytest.approx(60 / 3 / 4)  # one step of four, into the window
    assert curves.motion[3] == 0
    assert curves.sharpness[0] > 1000
    assert curves.sharpness[1:] == pytest.approx([0, 0, 0], abs=1e-3)
    assert curves.brightness[1] == pytest.approx(100, abs=1e-3)
    assert curves.frame_correlation[0] == pytest.approx(0, abs=0.1)
    assert curves.frame_correlation[2] == 0  # nothing in it that could be followed
    assert curves.colour_distance[0] == 0
    step = np.linalg.norm(np.array([160, 100, 100]) - noise.mean(axis=(0, 1, 2)))
    assert curves.colour_distance[3] == pytest.approx(step)


def test_what_goes_on_from_frame_to_frame_is_correlated() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    first = np.repeat(noise[:1], 8, axis=0)
    assert per_window(first, fps=8).frame_correlation == [pytest.approx(1, abs=1e-3)]
    inverse = first.copy()
    inverse[1::2] = 255 - inverse[1::2]
    assert per_window(inverse, fps=8).frame_correlation == [pytest.approx(-1, abs=1e-2)]


def test_one_frame() -> None:
    assert per_window(still(1), fps=8).motion == [0]
    with pytest.raises(ValueError, match="at least 2"):
        motion_energy(still(1))


@pytest.mark.parametrize(
    ("frames", "fps"),
    [(still(4).astype(np.float32), 8), (still(4)[..., :1], 8), (still(4), 0), (still(0), 8)],
)
def test_bad_input_is_refused(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(ValueError, match=r"frames|fps"):
        per_window(frames, fps=fps)
