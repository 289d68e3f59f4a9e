"""The decoder: codes to frames, causal in time (shape legend in layers.py)."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from models.tokenizer.config import LEVELS, STRIDES, TokenizerConfig
from models.tokenizer.layers import (
    AdaptiveNorm,
    CausalConv3d,
    CodeStatistics,
    FrameGroupNorm,
    Layer,
    ResBlock,
    Stream,
    Upsample,
    run,
)


class Decoder(nn.Module):
    """One code vector for 4 frames x 8 x 8 pixels to RGB frames; the encoder's mirror image.

    With ``adaptive_norm`` the codes scale and shift what each level begins with.

    Attributes:
        recompute_activations: As in `Encoder`.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        """Build the levels from the latent resolution up."""
        super().__init__()
        self.recompute_activations = False
        self.adaptive = config.adaptive_norm
        channels, kernels = config.level_channels, config.temporal_kernels
        layers: list[nn.Module] = [CausalConv3d(config.codebook.dim, channels[-1], kernels[-1])]
        layers += [
            ResBlock(channels[-1], config.groups, kernels[-1]) for _ in range(config.middle_blocks)
        ]
        time = 1
        for level in reversed(range(LEVELS)):
            if config.adaptive_norm:
                layers.append(
                    AdaptiveNorm(channels[level], config.groups, config.codebook.dim, time)
                )
            layers += [
                ResBlock(channels[level], config.groups, kernels[level])
                for _ in range(config.res_blocks[level])
            ]
            if level:
                layers.append(
                    Upsample(
                        channels[level], channels[level - 1], STRIDES[level - 1], kernels[level]
                    )
                )
                time *= STRIDES[level - 1][0]
        self.layers = nn.ModuleList(layers)
        self.norm = FrameGroupNorm(config.groups, channels[0], eps=1e-6)
        self.to_rgb = CausalConv3d(channels[0], 3, kernels[0])

    def forward(self, z_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Return frames (B, 3, 1+4k, 8H, 8W), not clamped, of codes (B, dim, 1+k, H, W).

        Frame t depends on latent frames 0 .. ceil(t / 4) only. Given a `stream`, chunks after the
        first have k latent frames and give 4k.
        """
        recompute = self.recompute_activations and self.training
        layers: list[Layer] = list(self.layers)
        if self.adaptive:
            codes = CodeStatistics.of(z_BCTHW)
            layers = [
                partial(layer, codes=codes) if isinstance(layer, AdaptiveNorm) else layer
                for layer in self.layers
            ]
        return run([*layers, self._last], z_BCTHW, stream, recompute)

    def _last(self, h_BCTHW: Tensor, stream: Stream | None) -> Tensor:
        return self.to_rgb(F.silu(self.norm(h_BCTHW)), stream)
