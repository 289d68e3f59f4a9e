"""PSNR and its solid-colour floor."""

import math

import pytest
import torch

from models.evaluation.reconstruction import (
    constant_colour_psnr_db,
    psnr_db,
    psnr_per_frame_db,
)


def test_known_values() -> None:
    black, white = -torch.ones(1, 3, 2, 4, 4), torch.ones(1, 3, 2, 4, 4)
    assert psnr_db(black, white) == pytest.approx(0)
    assert psnr_db(black, black + 0.2) == pytest.approx(20, abs=1e-4)
    assert math.isinf(psnr_db(black, black))


def test_per_frame_finds_the_bad_frame() -> None:
    x = torch.zeros(2, 3, 4, 8, 8)
    y = x + 0.02
    y[:, :, 3] = 0.2
    assert psnr_per_frame_db(x, y) == pytest.approx([40, 40, 40, 20], abs=1e-4)


def test_mean_colour_is_the_best_solid_colour_of_each_clip() -> None:
    x = torch.rand(2, 3, 3, 4, 4) * 2 - 1
    x[0] = x[0] * 0.1 + 0.5
    floor = constant_colour_psnr_db(x)
    best = x.mean(dim=(2, 3, 4), keepdim=True)
    for nudge in (-0.05, 0.05):
        assert psnr_db(x, (best + nudge).expand_as(x)) < floor
    assert psnr_db(x, torch.full_like(x, float(x.mean()))) < floor


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="equal"):
        psnr_db(torch.zeros(1, 3, 1, 2, 2), torch.zeros(1, 3, 2, 2, 2))
