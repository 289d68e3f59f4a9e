"""Collectives that all ranks of a run call at the same time."""

import torch
import torch.distributed as dist


def any_rank(flag: bool) -> bool:
    """Return whether `flag` is set on any rank."""
    return mean_over_ranks([float(flag)])[0] > 0


def sequence_group(ranks: int) -> dist.ProcessGroup | None:
    """Return the consecutive ranks, `ranks` of them, that share sequences with this one.

    None where it is 1.
    """
    return None if ranks == 1 else dist.new_subgroups(ranks)[0]


def mean_over_ranks(values: list[float]) -> list[float]:
    """Return the mean of each value over all ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return (tensor / dist.get_world_size()).tolist()
