"""The layers: an image is a still video, for every kernel and stride; the adaptive norm."""

import pytest
import torch
import torch.nn.functional as F

from models.tokenizer.layers import AdaptiveNorm, CausalConv3d, CodeStatistics


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


@torch.no_grad()
def test_the_adaptive_norm_is_that_of_its_paper_on_an_image() -> None:
    torch.manual_seed(0)
    layer, x, z = (
        AdaptiveNorm(8, 4, 3, time=4),
        torch.randn(2, 8, 1, 4, 4),
        torch.randn(2, 3, 1, 2, 2),
    )
    codes = CodeStatistics.of(z)
    plain = F.group_norm(x[:, :, 0], 4, eps=1e-6)
    torch.testing.assert_close(layer(x, None, codes)[:, :, 0], plain)  # as it begins
    layer.scale.weight.normal_()
    layer.shift.weight.normal_()
    flat = z[:, :, 0].flatten(2)
    scale = layer.scale(flat.std(dim=-1, correction=0))[..., None, None]
    shift = layer.shift(flat.mean(dim=-1))[..., None, None]
    found = layer(x, None, codes)[:, :, 0]
    torch.testing.assert_close(found, scale * plain + shift, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("time", [1, 2, 4])
def test_each_frame_is_scaled_by_the_latent_frame_that_it_comes_from(time: int) -> None:
    layer, frames = AdaptiveNorm(2, 1, 1, time), 3 * time - time + 1
    layer.shift.weight.fill_(1.0)
    z = torch.arange(3.0)[None, None, :, None, None].expand(1, 1, 3, 2, 2)
    y = layer(torch.zeros(1, 2, frames, 2, 2), None, CodeStatistics.of(z))
    assert y[0, 0, :, 0, 0].tolist() == [-(-frame // time) for frame in range(frames)]
