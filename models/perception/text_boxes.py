"""Text boxes in a picture: the detector of PP-OCR v4, by RapidOCR, its weights in the package.

Only the detector is asked, not the reader: it finds text in any script.
"""

from collections.abc import Sequence

import numpy as np

from models.perception import packages

WHAT = "stages.text"


def check(num_gpus: float) -> None:
    """Raise UserError when what the model needs is not there."""
    packages.need("rapidocr_onnxruntime", "rapidocr-onnxruntime==1.4.4", WHAT)
    packages.need_cuda(num_gpus, WHAT)


class TextBoxes:
    """The detector, in one process.

    Args:
        threads: that it uses on the CPU, at least 1.
        cuda: whether to run on a GPU.
    """

    def __init__(self, threads: int, cuda: bool) -> None:
        from rapidocr_onnxruntime import RapidOCR

        # Small pictures are not enlarged to 736 px, as they are by default: four times the cost.
        reader = RapidOCR(det_limit_type="max", det_use_cuda=cuda, intra_op_num_threads=threads)
        self._find = reader.text_det

    def find(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return for each uint8 RGB frame (H, W, 3) its text boxes, float32 (boxes, 4, 2)."""
        found = []
        for frame_HWC in frames:
            boxes, _ = self._find(np.ascontiguousarray(frame_HWC[..., ::-1]))
            there = boxes is not None and len(boxes)
            found.append(np.asarray(boxes) if there else np.empty((0, 4, 2), np.float32))
        return found
