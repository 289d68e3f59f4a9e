"""The weights behind a DeepSpeed engine, whichever ZeRO stage and precision shares them out."""

from typing import Any, cast

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param
from torch import Tensor, nn


def full_state(engine: deepspeed.DeepSpeedEngine) -> dict[str, Tensor]:
    """Return the model's state dict whole, on the CPU, parameters as the optimizer has them (fp32).

    Every rank calls this, and every rank gets all of it.
    """
    state = {}
    module = cast(nn.Module, engine.module)
    for name, value in module.state_dict(keep_vars=True).items():
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


def masters(engine: deepspeed.DeepSpeedEngine) -> list[Tensor]:
    """Return the fp32 tensors that this rank's optimizer steps: all weights, or its share."""
    optimizer: Any = engine.optimizer
    for held in (
        "fp32_partitioned_groups_flat",  # ZeRO 3
        "single_partition_of_fp32_groups",  # ZeRO 1 and 2
        "fp32_groups_flat_partition",  # ZeRO 0 in bf16
        "fp32_groups_flat",  # ZeRO 0 in fp16
    ):
        if hasattr(optimizer, held):
            return list(getattr(optimizer, held))
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def moved(parameter: nn.Parameter) -> None:
    """Tell the optimizer that a forward pass has written to a parameter.

    A parameter's `data` is whole on every rank here: ZeRO 3 must keep it whole, see
    `persistence_threshold` in :func:`ray_jobs.training.config.deepspeed_dict`.
    """
    with torch.no_grad():
        safe_set_full_fp32_param(parameter, parameter.data.float())
