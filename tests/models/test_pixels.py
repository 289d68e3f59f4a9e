"""Frames to pixels and back, exactly."""

import numpy as np
import torch

from models.pixels import to_frames, to_pixels


def test_every_byte_survives_the_round_trip() -> None:
    frames = np.arange(256 * 3, dtype=np.uint16).reshape(2, 4, 8, 4, 3).astype(np.uint8)
    pixels = to_pixels(frames)
    assert pixels.shape == (2, 3, 4, 8, 4)
    assert float(pixels.min()) == -1
    assert float(pixels.max()) == 1
    assert np.array_equal(to_frames(pixels), frames)
    assert torch.equal(to_pixels(torch.from_numpy(frames)), pixels)
    assert np.array_equal(to_frames(to_pixels(frames[0])), frames[0])


def test_what_is_out_of_range_is_clamped() -> None:
    frames = to_frames(torch.tensor([-1.5, 0.0, 1.5]).view(3, 1, 1, 1))
    assert frames.ravel().tolist() == [0, 128, 255]
