"""Optional capabilities of model parts, detected by their attributes."""

from typing import Any

from torch import nn


def recompute_activations(model: nn.Module) -> bool:
    """Make every part of a model that can do so keep less for the backward pass.

    Returns:
        Whether there is such a part: a module with an attribute ``recompute_activations``.
    """
    able = _with(model, "recompute_activations")
    for part in able:
        part.recompute_activations = True
    return bool(able)


def compile_blocks(model: nn.Module) -> bool:
    """Have every part of a model that can do so compile its blocks, by ``compile_blocks()``.

    Returns:
        Whether there is such a part.
    """
    able = _with(model, "compile_blocks")
    for part in able:
        part.compile_blocks()
    return bool(able)


def sequence_sharing(model: nn.Module) -> list[Any]:
    """Return the parts of a model that can share sequences out: with a ``share_sequences``."""
    return _with(model, "share_sequences")


def own_betas(model: nn.Module) -> dict[nn.Parameter, tuple[float, float]]:
    """Return AdamW's betas of the parameters that have their own.

    They are those of parts of the model with an attribute ``own_betas`` that is not None.
    """
    return {
        parameter: part.own_betas
        for part in _with(model, "own_betas")
        if part.own_betas is not None
        for parameter in part.parameters()
    }


def _with(model: nn.Module, attribute: str) -> list[Any]:
    return [part for part in model.modules() if hasattr(part, attribute)]
