"""Trained models as jobs read them: from a finished artifact, and pixels as models see them."""

from typing import Any, TypeVar

import einops
import numpy as np
import torch
from torch import Tensor, nn

from infra import artifact, storage
from infra.config import build
from infra.errors import UserError
from models import weights
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.model import LongtakeLlama
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.model import VideoTokenizer

M = TypeVar("M", bound=nn.Module)


def load_tokenizer(uri: str, device: torch.device) -> VideoTokenizer:
    """Return the tokenizer of a finished artifact, ready to encode and decode."""
    artifact.read(uri, ("tokenizer",))
    model = VideoTokenizer(tokenizer_config(uri))
    return _filled(model, uri, device)


def load_autoregressive(uri: str, device: torch.device) -> LongtakeLlama:
    """Return the autoregressive model of a finished artifact, ready to generate."""
    artifact.read(uri, ("autoregressive",))
    model = LongtakeLlama(build(ARConfig, _config(uri)))
    return _filled(model, uri, device)


def fill(model: nn.Module, uri: str, name: str) -> None:
    """Fill a model from an exported one; on the meta device only check that it fits.

    Args:
        model: what to fill.
        uri: an artifact, or any place with ``config.json`` and ``model.safetensors``.
        name: one of ``models.weights.MODELS``: what it has to be.

    Raises:
        UserError: it is another kind of model, or of another shape.
    """
    with storage.local_copy(storage.join(uri, weights.CONFIG_FILE)) as file:
        kind, _ = weights.load_config(file.parent)
    if kind != name:
        raise UserError(f"{uri}: holds a model of kind {kind}; allowed is {name}")
    file = storage.join(uri, weights.WEIGHTS_FILE)
    if next(model.parameters()).is_meta:
        check_fits(model.state_dict(), file)
        return
    with storage.local_copy(file) as copy:
        weights.load_into(model, copy)


def check_fits(wanted: dict[str, Tensor], uri: str) -> None:
    """Raise UserError unless a safetensors file has the tensors of `wanted`; reads its header."""
    with storage.open_input(uri) as stream:
        header = stream.read(weights.header_bytes(stream.read(8)))
    weights.check_fits(wanted, header, uri)


def tokenizer_config(uri: str) -> TokenizerConfig:
    """Return the settings of the tokenizer at `uri`."""
    return build(TokenizerConfig, _config(uri))


def to_pixels(frames_BTHWC: np.ndarray, device: torch.device) -> Tensor:
    """Return (B, 3, T, H, W) in [-1, 1] of uint8 frames."""
    x_BTHWC = torch.from_numpy(np.ascontiguousarray(frames_BTHWC)).to(device)
    return einops.rearrange(x_BTHWC, "b t h w c -> b c t h w").float() / 127.5 - 1


def to_frames(x_CTHW: Tensor) -> np.ndarray:
    """Return (T, H, W, 3) uint8 of frames (3, T, H, W) in [-1, 1]."""
    x_THWC = einops.rearrange(x_CTHW, "c t h w -> t h w c")
    return ((x_THWC.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


def _config(uri: str) -> dict[str, Any]:
    with storage.local_copy(storage.join(uri, weights.CONFIG_FILE)) as file:
        _, tree = weights.load_config(file.parent)
    return tree


def _filled(model: M, uri: str, device: torch.device) -> M:
    with storage.local_copy(storage.join(uri, weights.WEIGHTS_FILE)) as file:
        weights.load_into(model, file)
    return model.to(device).eval()
