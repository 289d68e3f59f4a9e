"""LPIPS: how unlike two pictures are to VGG16 (Zhang et al. 2018, version 0.1).

Shape legend: B clip, N frame of any clip, C channel, T frame, H row, W column.

Weights are one safetensors file with these keys, in float32:

    features.{0,2,5,7,10,12,14,17,19,21,24,26,28}.{weight,bias}   VGG16 as torchvision names it
    lin{0..4}.model.1.weight                                      the heads, (1, C, 1, 1)

They are made once, where their licences allow, from torchvision's ``vgg16-397923af.pth`` and from
``lpips/weights/v0.1/vgg.pth`` of the package lpips:

    vgg = torch.load("vgg16-397923af.pth", weights_only=True)
    heads = torch.load("vgg.pth", weights_only=True)
    vgg = {key: tensor for key, tensor in vgg.items() if key.startswith("features.")}
    safetensors.torch.save_file({**vgg, **heads}, "lpips_vgg16.safetensors")
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Places of the convolutions in torchvision's ``features``; a stage ends in what LPIPS compares."""
CHANNELS = (64, 128, 256, 512, 512)
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for pixels in [-1, 1], as lpips rounds them."""


class Perceptual(nn.Module):
    """LPIPS with VGG16. It is never trained, and no part of a checkpoint.

    So the weights are buffers that stay out of ``state_dict``: no optimizer, pattern of trained
    parameters or export can meet them. `fill` gives them values; without it they are zero.
    """

    shift_C11: Tensor
    scale_C11: Tensor

    def __init__(self) -> None:
        """Make room for the weights."""
        super().__init__()
        for name, shape in _shapes():
            self.register_buffer(_flat(name), torch.zeros(shape), persistent=False)
        self.register_buffer("shift_C11", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale_C11", torch.tensor(SCALE)[:, None, None], persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights under the names of the file; they are the ones in use, no copies."""
        return {name: self._weight(name) for name, _ in _shapes()}

    @torch.no_grad()
    def fill(self, state: dict[str, Tensor]) -> None:
        """Take weights that have the names and shapes of `weights`."""
        for name, tensor in self.weights().items():
            tensor.copy_(state[name])

    def forward(self, x_BCTHW: Tensor, y_BCTHW: Tensor) -> Tensor:
        """Return the distance of each frame, (B, T): 0 for equal frames, and never below.

        Args:
            x_BCTHW: RGB in [-1, 1], at least 16 x 16 pixels.
            y_BCTHW: the same; values outside the range are taken as they are.
        """
        total_N = torch.zeros((), device=x_BCTHW.device)
        for stage, (x_NCHW, y_NCHW) in enumerate(
            zip(self._features(x_BCTHW), self._features(y_BCTHW), strict=True)
        ):
            apart_NCHW = (_unit(x_NCHW) - _unit(y_NCHW)).square()
            head = self._weight(f"lin{stage}.model.1.weight")
            total_N = total_N + F.conv2d(apart_NCHW, head).mean(dim=(1, 2, 3))
        return total_N.view(x_BCTHW.shape[0], x_BCTHW.shape[2])

    def _features(self, x_BCTHW: Tensor) -> Iterator[Tensor]:
        """Yield what the last convolution of each stage gives, after ReLU."""
        h_NCHW = rearrange(x_BCTHW.float(), "b c t h w -> (b t) c h w")
        h_NCHW = (h_NCHW - self.shift_C11) / self.scale_C11
        for stage, places in enumerate(STAGES):
            if stage:
                h_NCHW = F.max_pool2d(h_NCHW, 2)
            for place in places:
                weight, bias = (
                    self._weight(f"features.{place}.{part}") for part in ("weight", "bias")
                )
                h_NCHW = F.relu(F.conv2d(h_NCHW, weight, bias, padding=1))
            yield h_NCHW

    def _weight(self, name: str) -> Tensor:
        return self.get_buffer(_flat(name))


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _unit(h_NCHW: Tensor) -> Tensor:
    """Return features of length one at each place."""
    length_N1HW = (h_NCHW.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()
    return h_NCHW / (length_N1HW + 1e-10)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    before = 3
    for places, channels in zip(STAGES, CHANNELS, strict=True):
        for place in places:
            yield f"features.{place}.weight", (channels, before, 3, 3)
            yield f"features.{place}.bias", (channels,)
            before = channels
    for stage, channels in enumerate(CHANNELS):
        yield f"lin{stage}.model.1.weight", (1, channels, 1, 1)
