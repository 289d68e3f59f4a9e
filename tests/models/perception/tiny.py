"""A tiny CLIP model with random weights in the hub's format, a linear head, and code to plant."""

import json
import shutil
from pathlib import Path

import open_clip
import tokenizers
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


def name_a_tokenizer(weights: Path, **text_cfg: object) -> None:
    """Have the model's config name a tokenizer of two words, and put that beside it."""
    file = weights / "open_clip_config.json"
    tree = json.loads(file.read_text())
    tree["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "owner/name", **text_cfg}
    file.write_text(json.dumps(tree))
    words = {"[PAD]": 0, "[UNK]": 1, "grey": 2, "rabbit": 3}
    model = tokenizers.models.WordLevel(words, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(weights / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (weights / "tokenizer_config.json").write_text(json.dumps(settings))


def plant_code(weights: Path, ran: Path) -> dict[str, object]:
    """Put a Python file beside weights that makes the file `ran` when it is imported.

    Returns:
        The key by which transformers finds it.
    """
    code = f"""
import pathlib, transformers
pathlib.Path({str(ran)!r}).touch()
class Config(transformers.PreTrainedConfig):
    model_type = "planted"
class Tokenizer(transformers.PreTrainedTokenizerFast):
    pass
"""
    (weights / "planted.py").write_text(code)
    name = "planted.Tokenizer"
    return {"auto_map": {"AutoConfig": "planted.Config", "AutoTokenizer": [name, name]}}


def as_hub_repository(weights: Path, cache: Path) -> str:
    """Copy a directory to where the hub's library keeps what it has fetched; return its id."""
    revision = "0" * 40
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(weights, repository / "snapshots" / revision)
    return "owner/name"
