"""Anchors of the clustering VQ: the batch feature that each code may move to, over all ranks.

Shape legend: N feature of this rank, K code, D channel, R rank. Features are visited in chunks,
so memory does not grow with N x K. Only K-sized tensors cross ranks, and every rank returns the
same (K, D) anchors as one rank would that holds the whole batch in rank order.
"""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from models.common.ranks import world

CHUNK_ELEMENTS = 2**25
"""Largest similarity matrix held at once: 128 MiB in float32."""

Similarity = Callable[[Tensor, Tensor], Tensor]
"""(n, D) features and (K, D) codes to (n, K), larger is nearer."""


def chunks(features_ND: Tensor, codes: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, rows) so that rows x codes stays under `CHUNK_ELEMENTS`."""
    rows = max(1, CHUNK_ELEMENTS // codes)
    for start in range(0, len(features_ND), rows):
        yield start, features_ND[start : start + rows]


def closest(features_ND: Tensor, codebook_KD: Tensor, similarity: Similarity) -> Tensor:
    """Return for each code the feature nearest to it, (K, D)."""
    codes = len(codebook_KD)
    best_K = features_ND.new_full((codes,), -torch.inf)
    row_K = torch.zeros(codes, dtype=torch.long, device=features_ND.device)
    for start, rows in chunks(features_ND, codes):
        value_K, index_K = similarity(rows, codebook_KD).max(dim=0)
        better_K = value_K > best_K
        best_K = torch.where(better_K, value_K, best_K)
        row_K = torch.where(better_K, index_K + start, row_K)
    return _from_owner(features_ND[row_K], _all_gather(best_K).argmax(dim=0))


def probable(
    features_ND: Tensor, codebook_KD: Tensor, similarity: Similarity, uniform_K: Tensor
) -> Tensor:
    """Return for each code a feature drawn with probability softmax over the batch, (K, D).

    The draw inverts the cumulative sum at ``uniform * total``: one number a code, however many
    features and ranks there are.

    Args:
        features_ND: the features of this rank.
        codebook_KD: the codes.
        similarity: larger is more probable.
        uniform_K: float64 in [0, 1), the same on every rank.
    """
    codes = len(codebook_KD)
    top_K = features_ND.new_full((codes,), -torch.inf)
    for _, rows in chunks(features_ND, codes):
        top_K = torch.maximum(top_K, similarity(rows, codebook_KD).amax(dim=0))
    top_K = _all_gather(top_K).amax(dim=0)

    def mass(rows: Tensor) -> Tensor:
        return (similarity(rows, codebook_KD) - top_K).double().exp()

    mass_K = torch.stack([mass(rows).sum(0) for _, rows in chunks(features_ND, codes)]).sum(0)
    ends_RK = _all_gather(mass_K).cumsum(dim=0)
    target_K = uniform_K * ends_RK[-1]
    owner_K = (ends_RK <= target_K).sum(dim=0).clamp(max=len(ends_RK) - 1)

    rank, _ = world()
    passed_K = ends_RK[rank] - mass_K
    row_K = torch.zeros(codes, dtype=torch.long, device=features_ND.device)
    for _, rows in chunks(features_ND, codes):
        sums_NK = passed_K + mass(rows).cumsum(dim=0)
        row_K += (sums_NK <= target_K).sum(dim=0)
        passed_K = sums_NK[-1]
    return _from_owner(features_ND[row_K.clamp(max=len(features_ND) - 1)], owner_K)


def _all_gather(x_K: Tensor) -> Tensor:
    _, ranks = world()
    if ranks == 1:
        return x_K[None]
    gathered = [torch.empty_like(x_K) for _ in range(ranks)]
    dist.all_gather(gathered, x_K.contiguous())
    return torch.stack(gathered)


def _from_owner(candidate_KD: Tensor, owner_K: Tensor) -> Tensor:
    """Return for each code the candidate of the rank that owns it."""
    rank, ranks = world()
    if ranks == 1:
        return candidate_KD
    anchor_KD = torch.where((owner_K == rank)[:, None], candidate_KD, 0)
    dist.all_reduce(anchor_KD)
    return anchor_KD
