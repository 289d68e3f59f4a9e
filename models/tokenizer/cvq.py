"""Clustering vector quantizer (CVQ-VAE, Zheng and Vedaldi 2023; Loong, section 3.1).

A plain VQ leaves most codes dead. Here a code moves towards a feature of the present batch, its
anchor, by a share that falls with its running usage p:

    p <- decay p + (1 - decay) usage          usage: share of the batch that chose the code
    a  = exp(-10 K p / (1 - decay) - 0.001)   near 1 for an unused code, near 0 for a used one
    e <- (1 - a) e + a anchor

Shape legend: B clip, C channel, T H W latent grid, N = B T H W features, K codes, D = C.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from infra.seeding import derive
from models.common.ranks import world
from models.tokenizer import anchors
from models.tokenizer.config import CVQConfig


class QuantizerOutput(NamedTuple):
    """What quantizing a batch gives; a tuple, since ZeRO 3 looks for tensors in nothing else."""

    quantized_BCTHW: Tensor
    """The chosen codes; their gradient goes straight through to the features."""
    ids_BTHW: Tensor
    loss: Tensor
    """beta ||sg(zq) - z||^2 + ||zq - sg(z)||^2, mean over elements; in train mode plus the
    contrastive term times its weight."""
    perplexity: Tensor
    """exp of the entropy of the codes chosen in this batch, over all ranks in training."""


class ClusteringVQ(nn.Module):
    """Nearest-code quantizer whose unused codes are re-initialised online.

    In train mode each `forward` updates the usage and then the codebook, in place and after the
    lookup; with a process group it does so over the batch of all ranks, equally on each. The
    draws of `probrandom` depend on (seed, updates) only, so a resumed run draws the same.

    Attributes:
        write: How the codebook is overwritten. A trainer that keeps the weights elsewhere too puts
            its own here.
    """

    usage_K: Tensor
    updates: Tensor

    def __init__(self, config: CVQConfig) -> None:
        """Draw codes uniform in (-1/K, 1/K); the first batch replaces those it leaves unused."""
        super().__init__()
        self.config = config
        self.codebook = nn.Parameter(torch.empty(config.size, config.dim))
        nn.init.uniform_(self.codebook, -1 / config.size, 1 / config.size)
        self.register_buffer("usage_K", torch.zeros(config.size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.write: Callable[[nn.Parameter, Tensor], None] = _copy

    def forward(self, z_BCTHW: Tensor) -> QuantizerOutput:
        """Quantize features; in train mode also update the codebook."""
        z_BCTHW = z_BCTHW.float()
        ids_BTHW = self.nearest(z_BCTHW)
        code_BCTHW = self.lookup(ids_BTHW)
        loss = self.config.beta * F.mse_loss(z_BCTHW, code_BCTHW.detach()) + F.mse_loss(
            code_BCTHW, z_BCTHW.detach()
        )
        share_K = self._share(ids_BTHW)
        if self.training and self.config.contrastive_weight:
            loss = loss + self.config.contrastive_weight * self.contrast(_rows(z_BCTHW.detach()))
        if self.training:
            self._update(_rows(z_BCTHW.detach()), share_K)
        return QuantizerOutput(
            quantized_BCTHW=z_BCTHW + (code_BCTHW - z_BCTHW).detach(),
            ids_BTHW=ids_BTHW,
            loss=loss,
            perplexity=torch.special.entr(share_K).sum().exp(),
        )

    @torch.no_grad()
    def nearest(self, z_BCTHW: Tensor) -> Tensor:
        """Return the id of the code nearest to each feature, (B, T, H, W) long."""
        batch, _, time, height, width = z_BCTHW.shape
        rows_ND = _rows(z_BCTHW.float())
        found = [
            self.similarity(rows, self.codebook).argmax(dim=1)
            for _, rows in anchors.chunks(rows_ND, self.config.size)
        ]
        return torch.cat(found).view(batch, time, height, width)

    def lookup(self, ids_BTHW: Tensor) -> Tensor:
        """Return the codes of ids, (B, C, T, H, W)."""
        return rearrange(F.embedding(ids_BTHW, self.codebook).float(), "b t h w c -> b c t h w")

    def similarity(self, rows_ND: Tensor, codebook_KD: Tensor) -> Tensor:
        """Return cosine similarity or minus the squared distance, (N, K) in float32."""
        with torch.autocast(rows_ND.device.type, enabled=False):
            rows_ND, codebook_KD = rows_ND.float(), codebook_KD.float()
            if self.config.distance == "cos":
                return F.normalize(rows_ND, dim=1) @ F.normalize(codebook_KD, dim=1).t()
            row_N1 = rows_ND.square().sum(dim=1, keepdim=True)
            code_K = codebook_KD.square().sum(dim=1)
            return 2 * rows_ND @ codebook_KD.t() - row_N1 - code_K

    def contrast(self, rows_ND: Tensor) -> Tensor:
        """Return the contrastive term: each code shall be near its nearest features, far from most.

        For each code the positive is the mean similarity of its N / K nearest features (at least
        one), the negatives are those of its N / 2 farthest; the term is the cross entropy of the
        positive among them at temperature 0.07, mean over codes (the public code of CVQ-VAE; the
        paper leaves the numbers open). It moves the codes only, and sees the features of this rank
        and micro-batch alone: sorting those of all ranks would send them all.
        """
        codes_KD = self.codebook.clone()  # the codebook is overwritten before the backward pass
        step = max(1, anchors.CHUNK_ELEMENTS // len(rows_ND))

        def part(some_KD: Tensor) -> Tensor:
            scores_KN = self.similarity(rows_ND, some_KD).t() / self.config.contrastive_temperature
            near = max(1, len(rows_ND) // self.config.size)
            near_K1 = scores_KN.topk(near, dim=1).values.mean(dim=1, keepdim=True)
            far_KN = scores_KN.topk(len(rows_ND) // 2, dim=1, largest=False).values
            all_KN = torch.cat([near_K1, far_KN], dim=1)
            return (all_KN.logsumexp(dim=1) - near_K1[:, 0]).sum()

        parts = [checkpoint(part, some, use_reentrant=False) for some in codes_KD.split(step)]
        return torch.stack(parts).sum() / self.config.size

    @torch.no_grad()
    def _share(self, ids_BTHW: Tensor) -> Tensor:
        """Return the share of features that chose each code; over all ranks in training."""
        count_K = torch.bincount(ids_BTHW.flatten(), minlength=self.config.size).double()
        if self.training and world()[1] > 1:
            dist.all_reduce(count_K)
        return (count_K / count_K.sum()).float()

    @torch.no_grad()
    def _update(self, rows_ND: Tensor, share_K: Tensor) -> None:
        config = self.config
        self.usage_K.mul_(config.decay).add_(share_K, alpha=1 - config.decay)
        if config.anchor == "closest":
            anchor_KD = anchors.closest(rows_ND, self.codebook, self.similarity)
        else:
            draws = torch.Generator().manual_seed(derive(config.seed, int(self.updates)))
            uniform_K = torch.rand(config.size, generator=draws, dtype=torch.float64)
            anchor_KD = anchors.probable(
                rows_ND, self.codebook, self.similarity, uniform_K.to(rows_ND.device)
            )
        share = -10 * config.size / (1 - config.decay) * self.usage_K - 1e-3
        move_K1 = share.exp()[:, None]
        self.write(self.codebook, self.codebook * (1 - move_K1) + move_K1 * anchor_KD)
        self.updates += 1


def _rows(z_BCTHW: Tensor) -> Tensor:
    return rearrange(z_BCTHW, "b c t h w -> (b t h w) c")


def _copy(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.copy_(value)
