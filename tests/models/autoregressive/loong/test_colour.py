"""Colour at joins: the distance is that of the evaluation, and the correction takes it away."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.autoregressive.loong.colour import colour_distance, match_colour
from models.evaluation import motion


def noise(mean: tuple[int, int, int], spread: int, frames: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    grain = torch.randint(-spread, spread + 1, (1, frames, 16, 24, 3), generator=random)
    return (grain + torch.tensor(mean)).to(torch.uint8)


def test_distance_is_that_of_the_evaluation():
    before, after = noise((90, 120, 60), 20, 4, 0), noise((130, 100, 70), 30, 4, 1)
    both = torch.cat((before, after), dim=1)[0].numpy()
    wanted = motion.per_window(both, fps=4, window_s=1).colour_distance[1]
    assert colour_distance(before, after).item() == pytest.approx(wanted)
    assert colour_distance(before, before).item() == 0


def test_distance_ends_at_442():
    black, white = (torch.full((2, 1, 4, 4, 3), level, dtype=torch.uint8) for level in (0, 255))
    np.testing.assert_allclose(colour_distance(black, white), 255 * 3**0.5)


def test_drift_of_a_synthetic_chunk_goes_to_0():
    tail, chunk = noise((90, 120, 60), 20, 5, 0), noise((130, 100, 70), 30, 12, 1)
    assert colour_distance(tail, chunk[:, :5]) > 40
    matched = match_colour(chunk, tail)
    assert matched.dtype == torch.uint8
    assert colour_distance(tail, matched[:, :5]) < 0.1
    spread = [x.double().std(dim=(0, 1, 2, 3)) for x in (tail, matched[:, :5])]
    torch.testing.assert_close(spread[1], spread[0], rtol=0.01, atol=0)


def test_change_within_the_chunk_stays():
    tail = noise((90, 90, 90), 20, 3, 0)
    chunk = torch.cat((noise((120, 90, 90), 20, 3, 1), noise((120, 130, 90), 20, 3, 2)), dim=1)
    matched = match_colour(chunk, tail).double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(
        matched[3:].mean(dim=0) - matched[:3].mean(dim=0),
        torch.tensor([0.0, 40.0, 0.0]).double(),
        rtol=0,
        atol=1.5,
    )


def test_videos_of_a_batch_do_not_meet_and_a_flat_colour_is_moved():
    tail = torch.cat((noise((90, 120, 60), 20, 3, 0), noise((30, 40, 50), 10, 3, 1)))
    flat = torch.full((2, 4, 16, 24, 3), 200, dtype=torch.uint8)
    together = match_colour(flat, tail)
    for row in range(2):
        assert torch.equal(together[row], match_colour(flat[row, None], tail[row, None])[0])
    assert colour_distance(tail, together).max() < 1


def test_a_flat_tail_does_not_take_the_picture_away():
    tail = torch.zeros(1, 3, 16, 24, 3, dtype=torch.uint8)
    assert match_colour(noise((120, 120, 120), 20, 3, 0), tail).double().std() > 1


def specks(level: int, frames: int, seed: int, share: float = 0.01) -> Tensor:
    """Black frames with a few pixels of another level."""
    random = torch.Generator().manual_seed(seed)
    there = torch.rand((1, frames, 16, 24, 1), generator=random) < share
    return (there * level).expand(-1, -1, -1, -1, 3).to(torch.uint8)


@pytest.mark.parametrize(
    ("tail", "head"),
    [
        (specks(9, 3, 0), specks(1, 3, 1)),
        (specks(1, 3, 0), specks(9, 3, 1)),
        (noise((90, 120, 60), 20, 3, 0), specks(1, 3, 1)),
        (specks(4, 3, 0), noise((90, 120, 60), 20, 3, 1)),
        (255 - specks(9, 3, 0), 255 - specks(1, 3, 1)),
        (noise((90, 120, 60), 20, 3, 0), 255 - specks(1, 3, 1)),
    ],
    ids=["black", "blacker", "to black", "from black", "white", "to white"],
)
def test_black_and_white_frames_leave_later_pixels_as_they_are(tail: Tensor, head: Tensor):
    later = noise((90, 120, 60), 20, 6, 2)
    matched = match_colour(torch.cat((head, later), dim=1), tail)
    assert torch.equal(matched[:, 3:], later)


def test_noise_of_a_flat_channel_does_not_multiply_what_comes_later():
    tail, head = noise((90, 120, 60), 20, 3, 0), noise((90, 120, 60), 1, 3, 1)
    later = noise((90, 120, 60), 30, 6, 2)
    matched = match_colour(torch.cat((head, later), dim=1), tail)
    assert (matched[:, 3:].int() - later.int()).abs().max() <= 1
    barely = noise((90, 120, 60), 5, 3, 1)  # twice its deviation, and no more
    spread = match_colour(torch.cat((barely, later), dim=1), tail)[:, 3:].double().std()
    assert 1.2 < spread / later.double().std() < 2.1


def test_a_black_video_does_not_keep_its_neighbour_from_being_matched():
    tail = torch.cat((specks(1, 3, 0), noise((90, 120, 60), 20, 3, 0)))
    chunk = noise((130, 100, 70), 30, 6, 1).expand(2, -1, -1, -1, -1)
    matched = match_colour(chunk, tail)
    assert torch.equal(matched[0], chunk[0])
    assert colour_distance(tail, matched[:, :3])[1] < 0.1
