"""A tokenizer and a model with random weights, as training would have left them."""

import time
from pathlib import Path
from typing import Any

import torch

from infra import artifact
from infra.config import JobConfig, as_tree
from models import exports, text
from models.autoregressive.loong import ARConfig, LongtakeLlama, Vocabulary
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer

TOKENIZER = TokenizerConfig(
    height_px=16,
    width_px=24,
    channels=4,
    channel_multipliers=(1, 1, 1, 1),
    res_blocks=(0, 0, 0, 0),
    middle_blocks=0,
    temporal_kernels=(1, 1, 1, 1),
    groups=1,
    codebook=CVQConfig(size=16, dim=4),
)
AUTOREGRESSIVE = ARConfig(
    vocabulary=Vocabulary(text=32_000, video=16),
    hidden=8,
    intermediate=8,
    layers=1,
    heads=2,
    init_std=1.0,
    max_text_tokens=16,
    max_positions=64,
)
FPS = 8.0
TEXT = text.PiecesConfig(max_tokens=16)


def write(folder: Path) -> list[str]:
    """Write both artifacts into a folder and return their URIs, the tokenizer's first."""
    torch.manual_seed(0)
    tokenizer = _export(folder, "tokenizer", VideoTokenizer(TOKENIZER), {})
    made_for = {
        "tokenizer_fingerprint": artifact.read(tokenizer).identity,
        "fps": FPS,
        "text": as_tree(TEXT),
        "text_fingerprint": text.build(TEXT).spec.fingerprint,
        "trained_frames": 9,
    }
    model = LongtakeLlama(AUTOREGRESSIVE)
    return [tokenizer, _export(folder, "autoregressive", model, made_for)]


def _export(folder: Path, kind: str, model: torch.nn.Module, summary: dict[str, Any]) -> str:
    settings = JobConfig(input=(str(folder),), output=str(folder / kind))
    output = artifact.begin(kind, settings)
    exports.save(model, folder / kind)
    artifact.finish(output, kind, summary, time.monotonic())
    return output.uri
