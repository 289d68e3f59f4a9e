"""A 3-D PatchGAN discriminator with LeCam regularisation (Isola et al. 2017; Tseng et al. 2021).

Shape legend: B clip, C channel, T frame, H row, W column.

It and the tokenizer are trained in one backward pass and by one optimizer. Each gets the gradient
of its own loss alone: the discriminator sees detached frames, the tokenizer is judged by detached
copies of the discriminator's weights.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.common.ranks import world
from models.losses.config import GROUPS, AdversarialConfig
from models.losses.lecam import lecam


class Game(NamedTuple):
    """Both sides' losses, unweighted scalars."""

    generator: Tensor
    """Has a gradient for the reconstruction only."""
    discriminator: Tensor
    """Has a gradient for the discriminator only."""
    lecam: Tensor
    """The same."""
    real_logit: Tensor
    """Mean of the logits of this batch's frames, over all ranks in training; no gradient."""
    fake_logit: Tensor


class Discriminator(nn.Module):
    """Logits for patches of space and time, and both sides' losses.

    In train mode `game` counts its calls and moves the running mean logits. With a process group
    the means are over all ranks, so that every rank has the same and one rank would too; every rank
    must then call it equally often.

    Attributes:
        own_betas: Those that its optimizer has instead of everyone's; None: everyone's.
    """

    passes: Tensor
    averaged: Tensor
    real_average: Tensor
    fake_average: Tensor

    def __init__(self, config: AdversarialConfig) -> None:
        """Build the discriminator with random weights."""
        super().__init__()
        self.config = config
        self.own_betas = config.betas
        widths = [config.channels * 2 ** min(layer, 3) for layer in range(config.layers + 1)]
        layers: list[nn.Module] = [_strided(3, widths[0]), nn.LeakyReLU(0.2)]
        for before, width in pairwise(widths[:-1]):
            layers += [_strided(before, width), nn.GroupNorm(GROUPS, width), nn.LeakyReLU(0.2)]
        layers += [
            nn.Conv3d(widths[-2], widths[-1], 3, padding=1),
            nn.GroupNorm(GROUPS, widths[-1]),
            nn.LeakyReLU(0.2),
            nn.Conv3d(widths[-1], 1, 3, padding=1),
        ]
        self.layers = nn.Sequential(*layers)
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        self.register_buffer("averaged", torch.zeros((), dtype=torch.long))
        self.register_buffer("real_average", torch.zeros(()))
        self.register_buffer("fake_average", torch.zeros(()))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the logits (B, 1, t, h, w) of frames in [-1, 1]: large is real.

        With three strided layers t, h, w are an eighth of T, H, W, rounded up for T. Any number of
        frames will do. Statistics of the normalisation are over a clip, never over the batch.
        """
        return self.layers(x_BCTHW)

    def game(self, x_BCTHW: Tensor, y_BCTHW: Tensor) -> Game:
        """Return the losses of both sides; before `start_step` all are zero.

        Args:
            x_BCTHW: real frames.
            y_BCTHW: their reconstruction.
        """
        started = int(self.passes) >= self.config.start_step
        if self.training:
            self.passes += 1
        if not started:
            # With a gradient of zeros, not none, every rank's and every ZeRO stage's optimizer
            # steps the same parameters.
            zero = torch.stack([p.sum() * 0 for p in self.parameters()]).sum()
            none = zero.detach()
            return Game(y_BCTHW.sum() * 0, zero, zero, none, none)
        real, fake = self(x_BCTHW), self(y_BCTHW.detach())
        detached = {name: parameter.detach() for name, parameter in self.named_parameters()}
        judged = functional_call(self, detached, (y_BCTHW,))
        real_mean, fake_mean = self._means(real, fake)
        if self.training:
            self._average(real_mean, fake_mean)
        generator, discriminator = _OBJECTIVES[self.config.objective]
        return Game(
            generator=generator(judged),
            discriminator=discriminator(real, fake),
            lecam=lecam(real, fake, self.real_average, self.fake_average),
            real_logit=real_mean,
            fake_logit=fake_mean,
        )

    @torch.no_grad()
    def _means(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        means = torch.stack([real.mean(), fake.mean()])
        _, ranks = world()
        if self.training and ranks > 1:
            dist.all_reduce(means)
            means = means / ranks
        return means[0], means[1]

    @torch.no_grad()
    def _average(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Move the running means; the first batch sets them."""
        share = 1.0 - self.config.lecam_decay if int(self.averaged) else 1.0
        self.real_average += share * (real_mean - self.real_average)
        self.fake_average += share * (fake_mean - self.fake_average)
        self.averaged += 1


def _strided(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, (3, 4, 4), stride=2, padding=1)


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _non_saturating(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


_OBJECTIVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "hinge": (lambda judged: -judged.mean(), _hinge),
    "non_saturating": (lambda judged: F.softplus(-judged).mean(), _non_saturating),
}
