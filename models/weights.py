"""Model weights on disk: ``model.safetensors`` + ``config.json``, and nothing pickled.

``config.json`` is ``{"model": "video_tokenizer" | "autoregressive", "config": {...}}``.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infra.errors import UserError

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MOST_HEADER_BYTES = 100 << 20
_KINDS = {"I64": "int64", "I32": "int32", "BOOL": "bool", "U8": "uint8"}
MODELS = ("video_tokenizer", "autoregressive")


def save(model: nn.Module, config: BaseModel, directory: Path, name: str | None = None) -> None:
    """Write a model's parameters and buffers, and its config, each file by temp and rename.

    Args:
        model: the model; tensors go to disk contiguous, in their own dtype.
        config: what the model was built from.
        directory: made when missing.
        name: one of `MODELS`; None takes the model class's ``export_name``.

    Raises:
        ValueError: the name is not one of `MODELS`.
    """
    save_state(model.state_dict(), config, directory, name or getattr(model, "export_name", ""))


def save_state(state: dict[str, Tensor], config: BaseModel, directory: Path, name: str) -> None:
    """Do the same for a state dict; see :func:`save`."""
    if name not in MODELS:
        raise ValueError(f"model name {name!r}: allowed are {MODELS}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / (WEIGHTS_FILE + ".tmp")
    save_file(_unshared(state), weights, metadata={"format": "pt"})
    os.replace(weights, directory / WEIGHTS_FILE)
    text = directory / (CONFIG_FILE + ".tmp")
    tree = {"model": name, "config": config.model_dump(mode="json")}
    text.write_text(json.dumps(tree, indent=1) + "\n")
    os.replace(text, directory / CONFIG_FILE)


def load_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Return (model name, config as plain values) of a saved directory.

    Raises:
        UserError: ``config.json`` is missing or is not such a file.
    """
    file = Path(path) / CONFIG_FILE
    try:
        tree = json.loads(file.read_bytes())
    except OSError:
        raise UserError(f"{file}: not found; expected a directory with {CONFIG_FILE}") from None
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    known = isinstance(tree, dict) and tree.get("model") in MODELS
    if not known or not isinstance(tree.get("config"), dict):
        raise UserError(f'{file}: expected {{"model": one of {MODELS}, "config": {{...}}}}')
    return tree["model"], tree["config"]


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of ``model.safetensors`` in a directory.

    Raises:
        UserError: there is no such file, or it is not safetensors (a pickle is never opened).
    """
    file = _weights_file(path)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(
            f"{file}: not a safetensors file ({error}); pickled checkpoints are not loaded"
        ) from None


def load_into(model: nn.Module, path: Path) -> None:
    """Fill a model from :func:`load_state`; every name, shape and kind of number must match.

    Raises:
        UserError: keys are missing, unexpected or misshaped; the model is then unchanged.
    """
    state = load_like(model.state_dict(), path)
    with torch.no_grad():
        model.load_state_dict(state)


def load_like(wanted: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return :func:`load_state`, if every name, shape and kind of number is as in `wanted`.

    Raises:
        UserError: keys are missing, unexpected or misshaped.
    """
    state = load_state(path)
    forms = {key: _form(tensor) for key, tensor in state.items()}
    _check(str(_weights_file(path)), wanted, forms)
    return state


def check_fits(wanted: dict[str, Tensor], header: bytes, name: str) -> None:
    """Raise UserError as :func:`load_like` would; reads no weights, and `wanted` may be on meta.

    Args:
        wanted: a state dict of what would be filled.
        header: the JSON header of a safetensors file (:func:`header_bytes` of its first 8).
        name: of the file, for the error.
    """
    try:
        entries = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        forms = {key: _kind(entry["dtype"]) + str(entry["shape"]) for key, entry in entries.items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{name}: not a safetensors file") from None
    _check(name, wanted, forms)


def header_bytes(start: bytes) -> int:
    """Return how many bytes of header follow the first 8 bytes of a safetensors file."""
    return min(int.from_bytes(start, "little"), MOST_HEADER_BYTES)


def _kind(dtype: str) -> str:
    return "float" if dtype.startswith(("F", "BF")) else _KINDS.get(dtype, dtype)


def _check(name: str, wanted: dict[str, Tensor], forms: dict[str, str]) -> None:
    problems = [
        *_listed("missing", [key for key in wanted if key not in forms]),
        *_listed("unexpected", [key for key in forms if key not in wanted]),
        *_listed(
            "misshaped",
            [
                f"{key} {forms[key]} where the model has {_form(tensor)}"
                for key, tensor in wanted.items()
                if key in forms and forms[key] != _form(tensor)
            ],
        ),
    ]
    if problems:
        raise UserError(f"{name} does not fit: {'; '.join(problems)}")


def fingerprint(path: Path) -> str:
    """Return 16 hex digits of the sha256 of the weights, and of the config where there is one."""
    weights = _weights_file(path)
    digest = hashlib.sha256()
    for file in (weights, weights.parent / CONFIG_FILE):
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _weights_file(path: Path) -> Path:
    path = Path(path)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: not found")
    return file


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors, tied ones copied: the format has no shared storage."""
    seen: set[int] = set()
    unshared = {}
    for key, tensor in state.items():
        tensor = tensor.detach().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        unshared[key] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return unshared


def _form(tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return f"{kind}{list(tensor.shape)}"


def _listed(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return [f"{what} {', '.join(items[:3])}{more}"]
