"""The layers: an image is a still video, for every kernel and stride."""

import pytest
import torch

from models.tokenizer.layers import CausalConv3d


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("time_kernel", [1, 3])
def test_an_image_is_the_first_frame_of_a_still_video(
    time_kernel: int, stride: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(3, 4, time_kernel, stride=stride).double()
    image = torch.rand(2, 3, 1, 8, 8, dtype=torch.double)
    still = image.expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(conv(image), conv(still)[:, :, :1])


def test_the_gradient_of_an_image_is_that_of_a_still_video() -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(3, 4, 3).double()
    image = torch.rand(1, 3, 1, 8, 8, dtype=torch.double)
    (cheap,) = torch.autograd.grad(conv(image).square().sum(), conv.conv.weight)
    video = conv(image.expand(-1, -1, 2, -1, -1))[:, :, :1]
    (full,) = torch.autograd.grad(video.square().sum(), conv.conv.weight)
    torch.testing.assert_close(cheap, full)
