"""The decoder: codes to frames, causal in time (shape legend in layers.py)."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.tokenizer.config import LEVELS, STRIDES, TokenizerConfig
from models.tokenizer.layers import CausalConv3d, FrameGroupNorm, ResBlock, Stream, Upsample, run


class Decoder(nn.Module):
    """One code vector for 4 frames x 8 x 8 pixels to RGB frames; the encoder's mirror image.

    Attributes:
        recompute_activations: As in `Encoder`.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        """Build the levels from the latent resolution up."""
        super().__init__()
        self.recompute_activations = False
        channels, kernels = config.level_channels, config.temporal_kernels
        layers: list[nn.Module] = [CausalConv3d(config.codebook.dim, channels[-1], kernels[-1])]
        layers += [
            ResBlock(channels[-1], config.groups, kernels[-1]) for _ in range(config.middle_blocks)
        ]
        for level in reversed(range(LEVELS)):
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
        self.layers = nn.ModuleList(layers)
        self.norm = FrameGroupNorm(config.groups, channels[0], eps=1e-6)
        self.to_rgb = CausalConv3d(channels[0], 3, kernels[0])

    def forward(self, z_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Return frames (B, 3, 1+4k, 8H, 8W), not clamped, of codes (B, dim, 1+k, H, W).

        Frame t depends on latent frames 0 .. ceil(t / 4) only. Given a `stream`, chunks after the
        first have k latent frames and give 4k.
        """
        recompute = self.recompute_activations and self.training
        return run([*self.layers, self._last], z_BCTHW, stream, recompute)

    def _last(self, h_BCTHW: Tensor, stream: Stream | None) -> Tensor:
        return self.to_rgb(F.silu(self.norm(h_BCTHW)), stream)
