"""Full weights behind a DeepSpeed engine, for every ZeRO stage and precision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import getclosurevars
from typing import Any, cast

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param
from torch import Tensor, nn

from ray_jobs.training.optimizer import matches


def full_state(engine: deepspeed.DeepSpeedEngine, frozen: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the model's state dict whole, on the CPU, parameters as the optimizer has them (fp32).

    Every rank calls this, and every rank gets all of it, except what `frozen` names.
    """
    state = {}
    module = cast(nn.Module, engine.module)
    for name, value in module.state_dict(keep_vars=True).items():
        if matches(name, frozen):
            continue
        whole = _full(value) if isinstance(value, nn.Parameter) else value
        state[name] = whole.detach().to("cpu", copy=True)
    return state


def _full(parameter: nn.Parameter) -> Tensor:
    whole = safe_get_full_fp32_param(parameter)
    if whole is not None:
        return whole
    if hasattr(parameter, "ds_id"):  # of ZeRO 3, and not trained
        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter


def fill(engine: deepspeed.DeepSpeedEngine, state: dict[str, Tensor]) -> None:
    """Load full weights for inference; optimizer state is untouched (every rank passes the same).

    For the end of a run, and for what does not train: the next optimizer step would undo it.
    """
    for name, parameter in cast(nn.Module, engine.module).named_parameters():
        if name not in state:  # frozen
            continue
        shared = hasattr(parameter, "ds_id")
        with deepspeed.zero.GatheredParameters([parameter], enabled=shared):
            parameter.data.copy_(state[name])  # ZeRO 3 keeps small ones whole
        if shared:
            _write_share(parameter, state[name])


def untrained(
    engine: deepspeed.DeepSpeedEngine, frozen: Sequence[str], keep: bool
) -> dict[str, Tensor]:
    """Return the parameters that do not train in this stage, except what `frozen` names.

    Their values come from earlier stages, and no optimizer has them. Every rank calls this; those
    with `keep` get them, the others nothing.
    """
    state = {}
    for name, parameter in cast(nn.Module, engine.module).named_parameters():
        if parameter.requires_grad or matches(name, frozen):
            continue
        whole = _full(parameter)
        if keep:
            state[name] = whole.detach().to("cpu", copy=True)
    return state


def forget_models() -> None:
    """Empty the globals in which ZeRO 3 of DeepSpeed 0.19.8 leaves the models it has trained."""
    FWD_MODULE_STACK.clear()
    cached = PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release  # pyright: ignore[reportAttributeAccessIssue]
    getclosurevars(cached).nonlocals["func"].cache_clear()


def masters(engine: deepspeed.DeepSpeedEngine) -> list[Tensor]:
    """Return the fp32 tensors that this rank's optimizer steps: all weights, or its share."""
    optimizer: Any = engine.optimizer
    for held in (
        "fp32_partitioned_groups_flat",  # ZeRO 3
        "single_partition_of_fp32_groups",  # ZeRO 1 and 2
        "fp32_groups_flat_partition",  # ZeRO 1 in bf16
    ):
        if hasattr(optimizer, held):
            return list(getattr(optimizer, held))
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def own_writes(module: nn.Module) -> None:
    """Make the parts of a model that overwrite parameters in a forward pass tell the optimizer.

    Such a part has an attribute ``write``, a function of a parameter and its new value.
    """
    for part in module.modules():
        if hasattr(part, "write"):
            part.write = write  # pyright: ignore[reportArgumentType]


@contextmanager
def own_writers_whole(module: nn.Module) -> Iterator[None]:
    """Gather the parameters of those parts: they are read outside forward passes too."""
    held = [p for part in module.modules() if hasattr(part, "write") for p in part.parameters()]
    with deepspeed.zero.GatheredParameters([p for p in held if hasattr(p, "ds_id")]):
        yield


@torch.no_grad()
def write(parameter: nn.Parameter, value: Tensor) -> None:
    """Overwrite a parameter, which is whole here, and every copy that DeepSpeed keeps of it."""
    parameter.data.copy_(value)
    safe_set_full_fp32_param(parameter, value.float())
    if hasattr(parameter, "ds_id"):
        _write_share(parameter, value)


def _write_share(parameter: nn.Parameter, value: Tensor) -> None:
    """Overwrite this rank's share, from which ZeRO 3 gathers a parameter anew."""
    share: Any = parameter.ds_tensor  # pyright: ignore[reportAttributeAccessIssue]
    start = share.numel() * dist.get_rank()
    part = value.flatten()[start : start + share.numel()]
    share.data.view(-1)[: part.numel()].copy_(part)
