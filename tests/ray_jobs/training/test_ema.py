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


def test_an_average_goes_on_from_what_a_checkpoint_has():
    weights = [torch.zeros(3, requires_grad=True), torch.ones(2, requires_grad=True)]
    ema, again = Ema(weights, decay=0.5), Ema(weights, decay=0.5)
    with torch.no_grad():
        weights[0].fill_(1.0)
    ema.update()
    again.load({name: tensor.clone() for name, tensor in ema.state().items()})
    for one in (ema, again):
        one.update()
    assert again.state().keys() == {"0", "1"}
    for name, tensor in again.state().items():
        assert torch.equal(tensor, ema.state()[name])
        assert not tensor.requires_grad
    torch.testing.assert_close(again.state()["0"], torch.full((3,), 0.75))


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
