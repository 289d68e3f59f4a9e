"""Layers of the tokenizer: causal convolution, per-frame norms, residual block, resampling.

Shape legend: B clip, C channel, T frame or latent frame, H row, W column. Every tensor here is
BCTHW with channels last in memory (``torch.channels_last_3d``), so a frame-by-frame view
``(B*T)CHW`` costs no copy and CPU convolutions run about twice as fast.

A causal convolution over frames a b c d with a kernel of 3 frames sees, by output frame:

    stride 1    a a|a     a a|a b   a|a b c   a b c d     (left of | is padding)
    stride 2    a a|a               a b c                 T = 1 + 2k frames become 1 + k

Given a `Stream`, left of | are the last frames of the chunk before, from the second chunk on.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Stream:
    """What the causal convolutions of one network remember between the chunks of one clip.

    At most two frames a convolution, whatever the length of the clip.

    Attributes:
        first: Whether the chunk under way is the first of its clip; the caller clears it.
        frames: For each convolution that needs one, the frames before the next chunk, BCTHW.
    """

    def __init__(self) -> None:
        """Begin a clip."""
        self.first = True
        self.frames: dict[nn.Module, Tensor] = {}


Layer = Callable[[Tensor, Stream | None], Tensor]


def run(layers: Iterable[Layer], x_BCTHW: Tensor, stream: Stream | None, recompute: bool) -> Tensor:
    """Apply layers in turn; with `recompute` keep only their inputs for the backward pass."""
    for layer in layers:
        if recompute:
            x_BCTHW = checkpoint(layer, x_BCTHW, stream, use_reentrant=False)
        else:
            x_BCTHW = layer(x_BCTHW, stream)
    return x_BCTHW


class CausalConv3d(nn.Module):
    """3-D convolution that sees the present and the past only.

    Time is padded on the left by repeating the first frame: an image then looks like a still
    video, so one set of weights serves both, and a still clip has the same features at every
    frame. Zeros would make the first frames a case of their own. Space is padded by zeros.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_kernel: int = 3,
        space_kernel: int = 3,
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        """Make a ``time_kernel x space_kernel x space_kernel`` convolution."""
        super().__init__()
        self.time_padding = time_kernel - 1
        half = space_kernel // 2
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            (time_kernel, space_kernel, space_kernel),
            stride,
            padding=(0, half, half),
        )

    def forward(self, x_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Convolve; output frame t depends on input frames up to ``t * stride`` only.

        An image fills the kernel with copies of itself, so its taps in time add up to one and
        the convolution costs a third.
        """
        if not self.time_padding:
            return self.conv(x_BCTHW)
        if stream is not None:
            return self._next(x_BCTHW, stream)
        if x_BCTHW.shape[2] == 1:
            conv = self.conv
            taps = conv.weight.sum(dim=2, keepdim=True)
            return F.conv3d(x_BCTHW, taps, conv.bias, conv.stride, conv.padding)
        return self.conv(self._padded(x_BCTHW))

    def _padded(self, x_BCTHW: Tensor) -> Tensor:
        first = x_BCTHW[:, :, :1].expand(-1, -1, self.time_padding, -1, -1)
        return torch.cat([first, x_BCTHW], dim=2)

    def _next(self, x_BCTHW: Tensor, stream: Stream) -> Tensor:
        if stream.first:
            x_BCTHW = self._padded(x_BCTHW)
        else:
            x_BCTHW = torch.cat([stream.frames[self], x_BCTHW], dim=2)
        y_BCTHW = self.conv(x_BCTHW)
        passed = y_BCTHW.shape[2] * self.conv.stride[0]
        stream.frames[self] = x_BCTHW[:, :, passed:].clone()  # a view would keep the whole chunk
        return y_BCTHW


class FrameGroupNorm(nn.GroupNorm):
    """Group normalisation of each frame alone: over time it would leak the future."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise BCTHW over (C/groups, H, W)."""
        batch = input.shape[0]
        frames = rearrange(input, "b c t h w -> (b t) c h w")
        return rearrange(super().forward(frames), "(b t) c h w -> b c t h w", b=batch)


class CodeStatistics(NamedTuple):
    """What `AdaptiveNorm` reads of a clip's codes; D channels of a code, k latent frames."""

    mean_BkD: Tensor
    """Over rows and columns of each latent frame."""
    deviation_BkD: Tensor
    """Standard deviation over the same."""

    @classmethod
    def of(cls, code_BDTHW: Tensor) -> "CodeStatistics":
        """Return those of codes (B, D, k, H, W)."""
        variance, mean = torch.var_mean(code_BDTHW, dim=(3, 4), correction=0)
        return cls(mean.mT, (variance + 1e-6).sqrt().mT)


class AdaptiveNorm(nn.Module):
    """Group normalisation that a frame's codes scale and shift (MAGVIT-v2's decoder).

    As in Open-MAGVIT2, the scale is a linear function of the standard deviation of the codes over
    rows and columns, and the shift one of their mean; but of each latent frame alone, since those
    of a clip would leak the future. Begins as a plain normalisation.

    Args:
        channels: of what is normalised.
        groups: of the normalisation.
        code_dim: D, channels of a code.
        time: frames for each latent frame but the first, which has one.
    """

    def __init__(self, channels: int, groups: int, code_dim: int, time: int) -> None:
        """Make a layer that keeps the shape."""
        super().__init__()
        self.time = time
        self.norm = FrameGroupNorm(groups, channels, eps=1e-6, affine=False)
        self.scale = nn.Linear(code_dim, channels)
        self.shift = nn.Linear(code_dim, channels)
        for layer, bias in ((self.scale, 1.0), (self.shift, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x_BCTHW: Tensor, stream: Stream | None, codes: CodeStatistics) -> Tensor:
        """Return a tensor of the input's shape; frame t goes by latent frame ceil(t / time)."""
        scale_BCTHW = self._of_frames(self.scale(codes.deviation_BkD), stream)
        return self.norm(x_BCTHW) * scale_BCTHW + self._of_frames(
            self.shift(codes.mean_BkD), stream
        )

    def _of_frames(self, values_BkC: Tensor, stream: Stream | None) -> Tensor:
        values_BTC = values_BkC.repeat_interleave(self.time, dim=1)
        if stream is None or stream.first:
            values_BTC = values_BTC[:, self.time - 1 :]
        return values_BTC.mT[..., None, None]


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, channels: int, groups: int, time_kernel: int) -> None:
        """Make a block that keeps the shape."""
        super().__init__()
        self.norm1 = FrameGroupNorm(groups, channels, eps=1e-6)
        self.conv1 = CausalConv3d(channels, channels, time_kernel)
        self.norm2 = FrameGroupNorm(groups, channels, eps=1e-6)
        self.conv2 = CausalConv3d(channels, channels, time_kernel)

    def forward(self, x_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Return a tensor of the input's shape."""
        h = self.conv1(F.silu(self.norm1(x_BCTHW)), stream)
        return x_BCTHW + self.conv2(F.silu(self.norm2(h)), stream)


class Downsample(nn.Module):
    """Strided causal convolution: T = 1 + 2k frames become 1 + k where time is halved."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int, int], time_kernel: int
    ) -> None:
        """Make a convolution with `stride` over (T, H, W), each 1 or 2."""
        super().__init__()
        self.stride = stride
        time_kernel = 3 if stride[0] == 2 else time_kernel
        self.conv = CausalConv3d(in_channels, out_channels, time_kernel, stride=stride)

    def forward(self, x_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Return the tensor divided by the stride."""
        return self.conv(x_BCTHW, stream)


class Upsample(nn.Module):
    """Convolution at the low resolution, then depth to space.

    Doubling time gives two frames for each input frame and then drops the very first, so T
    becomes 2T - 1 and output frame t depends on input frames up to ceil(t / 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int, int], time_kernel: int
    ) -> None:
        """Make the inverse of `Downsample` with the same stride."""
        super().__init__()
        self.stride = stride
        time, height, width = stride
        self.conv = CausalConv3d(in_channels, out_channels * time * height * width, time_kernel)

    def forward(self, x_BCTHW: Tensor, stream: Stream | None = None) -> Tensor:
        """Return the tensor multiplied by the stride, less ``stride[0] - 1`` first frames."""
        time, height, width = self.stride
        x_BTHWC = rearrange(
            self.conv(x_BCTHW, stream),
            "b (i j k c) t h w -> b (t i) (h j) (w k) c",
            i=time,
            j=height,
            k=width,
        )
        dropped = time - 1 if stream is None or stream.first else 0
        return rearrange(x_BTHWC[:, dropped:], "b t h w c -> b c t h w")
