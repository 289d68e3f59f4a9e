"""Generated films whose cuts are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.encode import Mp4Writer

Film = Callable[..., Path]


def textured(seed: int, frames: int, height: int = 144, width: int = 256) -> np.ndarray:
    """Return uint8 THWC: a blocky random picture that drifts by two pixels a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    return np.stack([np.roll(picture, 2 * t, axis=1) for t in range(frames)])


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """Return a function that writes a 25 fps film of shots with the given numbers of frames."""
    folder = tmp_path_factory.mktemp("films")
    made: dict[tuple[int, ...], Path] = {}

    def make(*shots: int) -> Path:
        if shots not in made:
            path = folder / f"{'-'.join(map(str, shots))}.mp4"
            with Mp4Writer(path, 25, 256, 144) as writer:
                for seed, frames in enumerate(shots):
                    for frame in textured(seed, frames):
                        writer.write(frame)
            made[shots] = path
        return made[shots]

    return make
