"""A tiny CLIP model with random weights in the hub's format, and a linear head."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write(folder: Path) -> tuple[Path, Path]:
    """Write a model and a head, and return the model's directory and the head's file."""
    weights = folder / "clip"
    weights.mkdir(parents=True)
    tree = {"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (weights / "open_clip_config.json").write_text(json.dumps(tree))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{weights}", load_weights=False)
    save_file(model.state_dict(), weights / "open_clip_model.safetensors")
    head = folder / "head.safetensors"
    save_file({"weight": torch.randn(1, 16), "bias": torch.full((1,), 5.0)}, head)
    return weights, head
