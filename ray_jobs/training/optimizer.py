"""AdamW with learning-rate multiples by parameter name, and betas of single parts."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch

from infra.errors import UserError
from ray_jobs.training.capabilities import own_betas
from ray_jobs.training.config import OptimizerConfig


def adamw(
    model: torch.nn.Module, settings: OptimizerConfig, learning_rate: float
) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters, in `parameter_groups`."""
    return torch.optim.AdamW(
        parameter_groups(model, settings.learning_rate_multiples),
        lr=learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,  # four times faster on CPU where the text table is large
    )


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a parameter's name is among names or patterns (``*.codebook``)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def parameter_groups(
    model: torch.nn.Module, multiples: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return AdamW's groups, one for each multiple of the learning rate and pair of own betas.

    Args:
        model: gives its trained parameters by name.
        multiples: name or pattern to multiple, as in ``OptimizerConfig``; the first match counts.

    Raises:
        UserError: a pattern matches no parameter.
    """
    groups: dict[tuple[float, tuple[float, float] | None], list[torch.nn.Parameter]] = {}
    unmatched, own = set(multiples), own_betas(model)
    for name, parameter in model.named_parameters():
        matching = [pattern for pattern in multiples if fnmatchcase(name, pattern)]
        unmatched.difference_update(matching)
        if not parameter.requires_grad:
            continue
        multiple = multiples[matching[0]] if matching else 1.0
        groups.setdefault((multiple, own.get(parameter)), []).append(parameter)
    if unmatched:
        names = ", ".join(sorted(unmatched))
        raise UserError(f"run.optimizer.learning_rate_multiples: {names} matches no parameter")
    return [
        {"params": params, "multiple": multiple, **({} if betas is None else {"betas": betas})}
        for (multiple, betas), params in groups.items()
    ]
