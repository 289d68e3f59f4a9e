"""Safetensors files: saving, loading with every name and shape checked, fingerprints."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infra.errors import UserError

WEIGHTS_FILE = "model.safetensors"
_MOST_HEADER_BYTES = 100 << 20
_KINDS = {"I64": "int64", "I32": "int32", "BOOL": "bool", "U8": "uint8"}


def save(state: dict[str, Tensor], file: Path) -> None:
    """Write tensors, contiguous and in their own dtype, by temp and rename."""
    partial = file.with_name(file.name + ".tmp")
    save_file(_unshared(state), partial, metadata={"format": "pt"})
    os.replace(partial, file)


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of ``model.safetensors`` in a directory.

    Raises:
        UserError: there is no such file, or it is not safetensors (a pickle is never opened).
    """
    file = found(path)
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
    _check(str(found(path)), wanted, forms)
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
    return min(int.from_bytes(start, "little"), _MOST_HEADER_BYTES)


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


def fingerprint(*files: Path) -> str:
    """Return 16 hex digits of the sha256 of the bytes of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        with found(file).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def found(path: Path) -> Path:
    """Return a file, or ``model.safetensors`` in a directory; UserError if it is not there."""
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
