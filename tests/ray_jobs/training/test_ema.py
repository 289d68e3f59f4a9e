"""The moving average of the weights."""

import torch

from ray_jobs.training.ema import Ema


def test_a_step_keeps_the_decays_share_of_the_average():
    weight = torch.zeros(3)
    ema = Ema([weight], decay=0.9)
    weight.fill_(1.0)
    ema.update()
    torch.testing.assert_close(ema.state()["0"], torch.full((3,), 0.1))
    ema.update()
    torch.testing.assert_close(ema.state()["0"], torch.full((3,), 0.19))


def test_a_decay_of_zero_follows_the_weights():
    weight = torch.zeros(3)
    ema = Ema([weight], decay=0.0)
    weight.fill_(2.0)
    ema.update()
    torch.testing.assert_close(ema.state()["0"], weight)


def test_weights_are_themselves_again_after_the_average_stood_in_their_place():
    weight = torch.zeros(3)
    ema = Ema([weight], decay=0.5)
    weight.fill_(1.0)
    ema.update()
    with ema.in_place():
        torch.testing.assert_close(weight, torch.full((3,), 0.5))
    torch.testing.assert_close(weight, torch.ones(3))
    torch.testing.assert_close(ema.state()["0"], torch.full((3,), 0.5))
