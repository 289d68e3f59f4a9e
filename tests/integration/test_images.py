"""Images go the way of films: to rows of the clip table, frame shards and training samples."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.loader import Loader, Mix
from infra.config import build
from infra.job import execute
from ray_jobs import frames, prepare

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SUFFIXES = (".png", ".jpg", ".webp")


def test_images_reach_training(ray_session: None, tmp_path: Path):
    folder = tmp_path / "images"
    folder.mkdir()
    y, x = np.mgrid[0:96, 0:96]
    for number in range(9):
        picture = np.stack([x * 2, y * 2, np.full_like(x, 25 * number)], -1).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number}{SUFFIXES[number % 3]}", quality=95)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    filters = {"resolution": {"min_short_side_px": 32}, "blur": {"min_sharpness": 0.0}}
    tree = {"input": [str(folder)], "output": str(tmp_path / "clips"),
            "analysis": {"filters": filters}}  # fmt: skip
    execute(prepare.JOB, build(prepare.PrepareConfig, tree))
    tree = {"input": [str(tmp_path / "clips")], "output": str(tmp_path / "frames"), "fps": 8.0,
            "sizes": [{"height_px": 48, "width_px": 48}], "validation_share": 0.3}  # fmt: skip
    made = execute(frames.JOB, build(frames.FramesConfig, tree))
    assert (made["clips"], made["failed"]) == (9, 0)
    seen: list[int] = []
    for split in ("train", "validation"):
        loader = Loader(str(tmp_path / "frames"), split, [Mix(frames=1)], 1, 1, 0)
        assert len(loader) == made[split] > 0
        for sample in loader.first(len(loader)):
            assert sample.data.shape == (1, 48, 48, 3)
            red, green, blue = sample.data[0].astype(int).transpose(2, 0, 1)
            seen.append(round(blue.mean() / 25))
            assert np.abs(red - x[:48, :48] * 4).max() < 24
            assert np.abs(green - y[:48, :48] * 4).max() < 24
    assert sorted(seen) == list(range(9))
