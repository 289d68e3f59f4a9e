"""The encoder: frames to latent features, causal in time (shape legend in layers.py)."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.tokenizer.config import STRIDES, TokenizerConfig
from models.tokenizer.layers import CausalConv3d, Downsample, FrameGroupNorm, ResBlock, Stream, run


class Encoder(nn.Module):
    """RGB frames to one feature vector for 4 frames x 8 x 8 pixels.

    Attributes:
        recompute_activations: When true, training keeps only the input of each layer and runs the
            layer again in the backward pass.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        """Build the levels from full resolution down."""
        super().__init__()
        self.recompute_activations = False
        channels, kernels = config.level_channels, config.temporal_kernels
        layers: list[nn.Module] = [CausalConv3d(3, channels[0], kernels[0])]
        for level, blocks in enumerate(config.res_blocks):
            layers += [
                ResBlock(channels[level], config.groups, kernels[level]) for _ in range(blocks)
            ]
            if level < len(STRIDES):
                layers.append(
                    Downsample(channels[level], channels[level + 1], STRIDES[level], kernels[level])
                )
        layers += [
            ResBlock(channels[-1], config.groups, kernels[-1]) for _ in range(config.middle_blocks)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = FrameGroupNorm(config.groups, channels[-1], eps=1e-6)
        self.project = CausalConv3d(channels[-1], config.codebook.dim, 1, space_kernel=1)

    def forward(self, x_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Return features (B, dim, 1+k, H/8, W/8) of frames (B, 3, 1+4k, H, W).

        Feature frame k depends on frames 0 .. 4k only. Given a `stream`, chunks after the first
        have 4k frames and give k.
        """
        recompute = self.recompute_activations and self.training
        return run([*self.layers, self._last], x_BCTHW, stream, recompute)

    def _last(self, h_BCTHW: Tensor, stream: Stream | None) -> Tensor:
        return self.project(F.silu(self.norm(h_BCTHW)), stream)
