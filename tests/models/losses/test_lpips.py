"""LPIPS: a distance, by frame, that nothing can train or save. Weights are random."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses.lpips import Perceptual, heads
from models.tokenizer.config import TokenizerConfig
from tests.models.tokenizer.test_model import clip


def random_weights() -> dict[str, Tensor]:
    """Return weights in the real format: names and shapes of VGG16."""
    draws = torch.Generator().manual_seed(7)
    state = {}
    for name, empty in Perceptual().weights().items():
        state[name] = torch.randn(empty.shape, generator=draws) / 9 / empty.shape[0] ** 0.5
    return state


@pytest.fixture(scope="module")
def perceptual() -> Perceptual:
    module = Perceptual()
    module.fill(random_weights())
    return module


def test_the_file_has_the_names_and_shapes_of_vgg16() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in Perceptual().weights().items()}
    assert len(shapes) == 13 * 2
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["features.28.bias"] == (512,)
    vgg = sum(tensor.numel() for tensor in Perceptual().weights().values())
    assert vgg == 14_714_688  # the convolutions of VGG16


def test_the_heads_are_those_of_the_paper() -> None:
    """Version 0.1 has a weight of at least 0 for each channel that VGG16 compares."""
    found = heads()
    sizes = [tuple(found[f"lin{stage}.model.1.weight"].shape) for stage in range(5)]
    assert sizes == [(1, channels, 1, 1) for channels in (64, 128, 256, 512, 512)]
    assert all((head >= 0).all() for head in found.values())


def test_a_distance_by_frame(perceptual: Perceptual) -> None:
    x, y = clip(2, batch=2), -clip(2, batch=2)
    y[:, :, 1] = x[:, :, 1]
    apart = perceptual(x, y)
    assert apart.shape == (2, 2)
    assert (apart[:, 0] > 1e-3).all()
    assert torch.equal(apart[:, 1], torch.zeros(2))
    torch.testing.assert_close(apart, perceptual(y, x))
    torch.testing.assert_close(apart[:1], perceptual(x[:1], y[:1]))


def test_it_equals_the_papers_equation(perceptual: Perceptual) -> None:
    """Equation 1 of the paper, with torch's own layers in the order of VGG16's sheet."""
    state, x, y = random_weights(), clip(1), -clip(1)

    def features(frame: Tensor) -> list[Tensor]:
        mean, deviation = ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
        h = torch.stack([(frame[:, c] - mean[c]) / deviation[c] for c in range(3)], dim=1)
        taps, place = [], 0
        for letter in "CC|MCC|MCCC|MCCC|MCCC|":
            if letter == "|":
                taps.append(h)
                continue
            if letter == "M":
                h, place = F.max_pool2d(h, 2), place + 1
            else:
                weight, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
                h, place = F.relu(F.conv2d(h, weight, bias, padding=1)), place + 2
        return taps

    expected = torch.zeros(())
    both = zip(features(x[:, :, 0]), features(y[:, :, 0]), strict=True)
    for stage, (one, other) in enumerate(both):
        apart = (F.normalize(one) - F.normalize(other)).square()[0]
        weights = heads()[f"lin{stage}.model.1.weight"].flatten()
        expected = expected + (weights[:, None, None] * apart).sum(0).mean()
    torch.testing.assert_close(perceptual(x, y).squeeze(), expected, atol=1e-5, rtol=1e-4)


def test_only_the_frames_get_a_gradient_and_nothing_is_saved(perceptual: Perceptual) -> None:
    y = clip(1).requires_grad_()
    perceptual(torch.zeros_like(y), y).sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert y.grad.abs().sum() > 0
    assert not list(perceptual.parameters())
    assert not perceptual.state_dict()


def test_frames_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 x 16"):
        TokenizerConfig(height_px=8, perceptual={"weights": "/vgg"})  # type: ignore[arg-type]


def test_it_moves_with_its_module_and_stays_in_float32(perceptual: Perceptual) -> None:
    holder = torch.nn.ModuleList([Perceptual()]).to("meta", torch.bfloat16)
    kinds = {(t.device.type, t.dtype) for t in holder[0].weights().values()}  # type: ignore[operator]
    assert kinds == {("meta", torch.float32)}


def test_making_room_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    Perceptual()
    assert torch.equal(torch.rand(1), expected)
