"""LPIPS: how unlike two pictures are to VGG16 (Zhang et al. 2018, version 0.1), by torchmetrics.

Shape legend: B clip, N frame of any clip, C channel, T frame, H row, W column.

The linear heads are those of the wheel. VGG16's weights are a safetensors file with the keys
``features.{0,2,5,7,10,12,14,17,19,21,24,26,28}.{weight,bias}`` in float32, which is made once from
torchvision's ``vgg16-397923af.pth``:

    vgg = torch.load("vgg16-397923af.pth", weights_only=True)
    vgg = {key: tensor for key, tensor in vgg.items() if key.startswith("features.")}
    safetensors.torch.save_file(vgg, "vgg16.safetensors")
"""

from collections.abc import Callable
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torchmetrics.functional.image import lpips


class Perceptual(nn.Module):
    """LPIPS with VGG16. It is never trained, and no part of a checkpoint.

    So its network is kept where ``state_dict`` and ``parameters`` do not look: no optimizer,
    pattern of trained parameters or export can meet it. It moves with the module, and stays in
    float32. `fill` gives it weights; without it they are zero.
    """

    def __init__(self) -> None:
        """Make room for the weights."""
        super().__init__()
        device = torch.get_default_device()
        with torch.device("meta"):  # draws no random numbers, and no memory for VGG's classifier
            net = lpips._NoTrainLpips(net="vgg", pretrained=False, pnet_rand=True)
        net.to_empty(device=device)
        net.scaling_layer = lpips.ScalingLayer()
        self._hidden = [net]
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.zero_()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights under the names of the file; they are the ones in use, no copies."""
        state = self._hidden[0].net.state_dict()
        return {f"features.{name.partition('.')[2]}": tensor for name, tensor in state.items()}

    @torch.no_grad()
    def fill(self, state: dict[str, Tensor]) -> None:
        """Take weights that have the names and shapes of `weights`, and the package's heads."""
        for name, tensor in self.weights().items():
            tensor.copy_(state[name])
        self._hidden[0].load_state_dict(heads(), strict=False)

    def forward(self, x_BCTHW: Tensor, y_BCTHW: Tensor) -> Tensor:
        """Return the distance of each frame, (B, T): 0 for equal frames, and never below.

        Args:
            x_BCTHW: RGB in [-1, 1], at least 16 x 16 pixels.
            y_BCTHW: the same; values outside the range are taken as they are.
        """
        x_NCHW, y_NCHW = (
            rearrange(frames.float(), "b c t h w -> (b t) c h w") for frames in (x_BCTHW, y_BCTHW)
        )
        distance_N111 = self._hidden[0](x_NCHW, y_NCHW)
        return distance_N111.view(x_BCTHW.shape[0], x_BCTHW.shape[2])

    def _apply(self, fn: Callable, recurse: bool = True) -> "Perceptual":
        self._hidden[0]._apply(fn).float()
        return super()._apply(fn, recurse)


def heads() -> dict[str, Tensor]:
    """Return the linear heads: ``lin{0..4}.model.1.weight``, (1, C, 1, 1) each."""
    assert lpips.__file__ is not None
    file = Path(lpips.__file__).with_name("lpips_models") / "vgg.pth"
    return torch.load(file, map_location="cpu", weights_only=True)
