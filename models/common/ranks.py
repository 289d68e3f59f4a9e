"""Rank and number of ranks of the process group that a model trains in."""

import torch.distributed as dist


def world() -> tuple[int, int]:
    """Return (rank, ranks) of the default process group, (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
