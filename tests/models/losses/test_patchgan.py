"""One backward pass trains both sides, each by its own loss alone; two ranks equal one."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from models.losses.config import AdversarialConfig
from models.losses.patchgan import Discriminator
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.losses import total_loss
from models.tokenizer.model import VideoTokenizer
from models.tokenizer.training import PREFIX, TrainingTokenizer, for_training, tokenizer_state
from tests.models.tokenizer.test_model import TINY, clip

STEPS = 3


def config(**changes: Any) -> TokenizerConfig:
    adversarial = AdversarialConfig(channels=8, layers=2, **changes)
    return TINY.model_copy(update={"adversarial": adversarial})


def model(**changes: Any) -> TrainingTokenizer:
    torch.manual_seed(0)
    built = for_training(config(**changes))
    assert isinstance(built, TrainingTokenizer)
    return built


def discriminator(**changes: Any) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(AdversarialConfig(channels=8, layers=2, **changes))


def gradients(built: TrainingTokenizer, loss: Tensor) -> dict[str, Tensor]:
    built.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in built.named_parameters()
    }


@pytest.mark.parametrize("objective", ["hinge", "non_saturating"])
def test_each_side_gets_the_gradient_of_its_own_loss_alone(objective: str) -> None:
    built = model(objective=objective, lecam_decay=0.5)
    built(-clip(5, batch=2))  # so that LeCam has means that are not this batch's
    out = built(clip(5, batch=2))
    own = {name: out.losses[name] for name in ("discriminator", "lecam")}
    rest = {name: loss for name, loss in out.losses.items() if name not in own}
    together = gradients(built, out.loss)
    of_discriminator = gradients(built, total_loss(own, built.config))
    of_tokenizer = gradients(built, total_loss(rest, built.config))
    adversarial = gradients(built, out.losses["adversarial"])
    for name, gradient in together.items():
        mine, other = of_tokenizer, of_discriminator
        if name.startswith(PREFIX):
            mine, other = other, mine
        assert torch.equal(gradient, mine[name]), name
        assert not other[name].any(), name
        if name.startswith(PREFIX):
            assert gradient.any(), name
    assert adversarial["decoder.to_rgb.conv.weight"].any()
    assert adversarial["encoder.layers.0.conv.weight"].any()


def test_the_tokenizers_term_is_that_of_frozen_weights() -> None:
    judge, x = discriminator(), clip(5)
    y, again = clip(5).neg().requires_grad_(), clip(5).neg().requires_grad_()
    judge.game(x, y).generator.backward()
    assert all(parameter.grad is None for parameter in judge.parameters())
    judge.requires_grad_(False)
    (-judge(again).mean()).backward()
    assert torch.equal(y.grad, again.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [1, 5, 17])
@pytest.mark.parametrize("size", [8, 16])
def test_patches_of_images_and_videos(frames: int, size: int) -> None:
    judge, x = discriminator(), clip(frames, batch=3, size=size)
    logits = judge(x)
    assert logits.shape == (3, 1, -(-frames // 4), size // 4, size // 4)
    torch.testing.assert_close(judge(x[1:2]), logits[1:2])  # clips do not mix


def test_lecam_pulls_towards_the_other_sides_mean() -> None:
    judge, x, y = discriminator(lecam_decay=0.75), clip(5), -clip(5)
    first = judge.game(x, y)
    assert torch.equal(judge.real_average, first.real_logit)
    assert torch.equal(judge.fake_average, first.fake_logit)
    second = judge.game(y, x)  # the sides change places, so the logits do
    real = 0.75 * first.real_logit + 0.25 * second.real_logit
    fake = 0.75 * first.fake_logit + 0.25 * second.fake_logit
    torch.testing.assert_close(judge.real_average, real)
    torch.testing.assert_close(judge.fake_average, fake)
    expected = (judge(y) - fake).clamp(min=0).square().mean()
    expected = expected + (real - judge(x)).clamp(min=0).square().mean()
    torch.testing.assert_close(second.lecam, expected)


def test_nothing_but_zero_gradients_before_the_start() -> None:
    built = model(start_step=2)
    plain = TINY.model_copy(update={"adversarial": None})
    torch.manual_seed(0)
    alone = VideoTokenizer(plain)
    for step in range(3):
        before, out = alone(clip(5)), built(clip(5))
        if step < 2:
            assert torch.equal(out.loss, before.loss)
            found = gradients(built, out.loss)
            assert all(not found[name].any() for name in found if name.startswith(PREFIX))
            named = dict(built.named_parameters())
            assert all(named[name].grad is not None for name in found if name.startswith(PREFIX))
        else:
            assert out.loss != before.loss


def test_eval_mode_changes_no_buffer() -> None:
    built = model()
    built(clip(5))
    before = {key: value.clone() for key, value in built.state_dict().items()}
    built.eval()(-clip(5))
    assert all(torch.equal(value, before[key]) for key, value in built.state_dict().items())


def test_the_tokenizer_is_the_same_with_and_without() -> None:
    torch.manual_seed(0)
    plain = VideoTokenizer(TINY)
    state = tokenizer_state(model().state_dict())
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert type(for_training(TINY)) is VideoTokenizer


def test_it_tells_real_from_fake_in_some_steps() -> None:
    judge, x = discriminator(), clip(5, batch=4)
    y = x.mean(dim=(-1, -2), keepdim=True).expand_as(x)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        game = judge.game(x, y)
        (game.discriminator + 0.05 * game.lecam).backward()
        optimizer.step()
    assert (judge(x).mean() - judge(y).mean()).item() > 1


def _train(rank: int, ranks: int, resume: bool = False) -> dict[str, Tensor]:
    built = model(start_step=1, lecam_decay=0.5)
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-3)
    for step in range(STEPS):
        if resume and step == 2:
            saved, moments = built.state_dict(), optimizer.state_dict()
            built = model(start_step=1, lecam_decay=0.5)
            built.load_state_dict({key: value.clone() for key, value in saved.items()})
            optimizer = torch.optim.AdamW(built.parameters(), lr=1e-3)
            optimizer.load_state_dict(moments)
        x = clip(5, batch=4).roll(step, dims=-1)
        share = len(x) // ranks
        optimizer.zero_grad()
        built(x[rank * share : (rank + 1) * share]).loss.backward()
        if ranks > 1:
            for parameter in built.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= ranks
        optimizer.step()
    return built.state_dict()


def _worker(rank: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(_train(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    spawn(_worker, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    whole = _train(0, 1)
    assert whole["discriminator.averaged"] == STEPS - 1
    for key, value in whole.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, atol=3e-5, rtol=1e-4)


def test_a_resumed_run_is_the_straight_run_to_the_bit() -> None:
    straight, resumed = _train(0, 1), _train(0, 1, resume=True)
    assert all(torch.equal(value, resumed[key]) for key, value in straight.items())
