"""Sequence parallelism by DeepSpeed-Ulysses (Jacobs et al. 2023, sec. 3).

```
stretch r of the tokens, all heads ──all-to-all──▶ all tokens, share r of the heads
                                                              │ attention
stretch r of the tokens, all heads ◀──all-to-all──────────────┘
```

Shapes: B batch, S tokens of a whole sequence, R ranks, P = ceil(S / R) tokens of a stretch,
N query heads, G key-value heads, E channels of a head.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.distributed._functional_collectives import all_gather_single, all_to_all_single


class Ulysses:
    """One of R ranks that hold a stretch of every sequence each.

    All ranks of the group call the same methods in the same order. Gradients flow through them, as
    those of the sum of all ranks' losses: where every rank has the same loss, the mean of their
    gradients is the gradient of one rank alone.

    Args:
        group: The ranks, in the order of their stretches.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.ranks, self.rank = group.size(), group.rank()

    def stretch(self, x_BS: Tensor, fill: int) -> Tensor:
        """This rank's tokens; the sequence is filled at its end until it divides.

        Returns:
            (B, P).
        """
        x_BS = F.pad(x_BS, (0, -x_BS.shape[1] % self.ranks), value=fill)
        return x_BS.chunk(self.ranks, dim=1)[self.rank]

    def gather(self, x_BP: Tensor) -> Tensor:
        """The stretches of all ranks as one sequence, (B, R*P), on every rank."""
        return all_gather_single(x_BP, 1, self._group)

    def to_heads(
        self, queries_BNPE: Tensor, keys_BGPE: Tensor, values_BGPE: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give up the other ranks' heads for the other stretches of one's own, in one exchange.

        Where R does not divide G, each key-value head is repeated until it does.

        Returns:
            (B, N/R, R*P, E) and twice (B, lcm(G, R)/R, R*P, E).
        """
        copies = self.ranks // math.gcd(keys_BGPE.shape[1], self.ranks)
        if copies > 1:
            keys_BGPE = keys_BGPE.repeat_interleave(copies, dim=1)
            values_BGPE = values_BGPE.repeat_interleave(copies, dim=1)
        shares = [
            rearrange(x, "B (R N) P E -> R B N P E", R=self.ranks)
            for x in (queries_BNPE, keys_BGPE, values_BGPE)
        ]
        received = self._exchange(torch.cat(shares, dim=2))
        queries, keys, values = (
            rearrange(x, "R B N P E -> B N (R P) E")
            for x in received.split([share.shape[2] for share in shares], dim=2)
        )
        return queries, keys, values

    def to_stretches(self, x_BNSE: Tensor) -> Tensor:
        """Undo `to_heads`: (B, N/R, R*P, E) to (B, N, P, E)."""
        sent = rearrange(x_BNSE, "B N (R P) E -> R B N P E", R=self.ranks)
        return rearrange(self._exchange(sent), "R B N P E -> B (R N) P E")

    def _exchange(self, x: Tensor) -> Tensor:
        """Send x[r] to rank r, and receive in [r] what it sends."""
        return all_to_all_single(x.contiguous(), None, None, self._group)
