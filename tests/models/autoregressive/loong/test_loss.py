"""Equations 1 and 2 against hand computation."""

from functools import partial

import pytest
import torch

from models.autoregressive.loong import (
    LongtakeLlama,
    build_batch,
    early_frame_weighted_loss,
    frame_range_losses,
    next_token_loss,
    token_nll,
)
from models.codec import ChunkedFrames
from tests.models.autoregressive.conftest import CODEC


def clip(batch: int, latents: int, seed: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 24, (batch, latents, 2, 2), generator=generator)


@torch.no_grad()
def test_nll_by_hand(model: LongtakeLlama):
    text = [[3, 4, 5], []]
    codes = clip(2, 3)
    nll = token_nll(model, build_batch(model.config, text, codes))
    for row in range(2):
        # Each token from a forward pass over nothing but what comes before it.
        for index, code in enumerate(codes[row].flatten().tolist()):
            single = build_batch(model.config, [text[row]], codes[row : row + 1])
            seen = single.ids_BS[:, : int(single.video_start_B) + index]
            scores = model(seen)[0, -1, model.config.vocabulary.video_ids]
            wanted = -scores.log_softmax(dim=0)[code]
            torch.testing.assert_close(nll[row].flatten()[index], wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_batched_equals_single_whatever_the_padding(model: LongtakeLlama):
    text, codes = [[1], [2, 3, 4, 5, 6, 7], []], clip(3, 5)
    together = token_nll(model, build_batch(model.config, text, codes))
    alone = [
        token_nll(model, build_batch(model.config, [text[row]], codes[row : row + 1]))
        for row in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    mean_of_losses = torch.stack([next_token_loss(nll) for nll in alone]).mean()
    torch.testing.assert_close(next_token_loss(together), mean_of_losses)


def test_equations_by_hand():
    nll = torch.rand(2, 17, 2, 3)
    early, late = nll[:, :5].double(), nll[:, 5:].double()
    length = 2 * 17 * 6
    equation_1 = (early.sum() + late.sum()) / length
    equation_2 = (2.5 * early.sum() + late.sum()) / length
    assert next_token_loss(nll).item() == pytest.approx(equation_1.item(), rel=1e-5)
    weighted = early_frame_weighted_loss(nll, early_frame_weight=1.5, early_latents=5)
    assert weighted.item() == pytest.approx(equation_2.item(), rel=1e-5)


def test_no_weight_is_equation_1():
    nll = torch.rand(2, 17, 2, 3)
    unweighted = early_frame_weighted_loss(nll, early_frame_weight=0.0, early_latents=5)
    assert torch.equal(unweighted, next_token_loss(nll))


@pytest.mark.parametrize(("early_frames", "latents"), [(1, 1), (17, 5), (33, 9)])
def test_weight_reaches_exactly_the_early_tokens(early_frames: int, latents: int):
    assert CODEC.latents_of_frames(early_frames) == latents
    nll = torch.zeros(1, 17, 16, 16, requires_grad=True)
    early_frame_weighted_loss(nll, early_frame_weight=1.0, early_latents=latents).backward()
    assert nll.grad is not None
    weights = (nll.grad * nll.numel()).flatten()
    early = latents * 256  # K = 1,280 for the paper's 17 frames
    torch.testing.assert_close(weights[:early], torch.full((early,), 2.0))
    torch.testing.assert_close(weights[early:], torch.ones(17 * 256 - early))


def test_short_clip_is_all_early():
    nll = torch.rand(2, 1, 2, 2)
    doubled = early_frame_weighted_loss(nll, early_frame_weight=1.0, early_latents=5)
    torch.testing.assert_close(doubled, 2 * next_token_loss(nll))


@pytest.mark.parametrize("latents", [1, 5, 6, 17])
def test_only_longer_clips_are_weighted_where_that_is_asked(latents: int):
    nll = torch.rand(2, latents, 2, 3)
    loss = partial(early_frame_weighted_loss, nll, early_frame_weight=3.0, early_latents=5)
    of_all, of_longer = loss(), loss(weighted="longer")
    torch.testing.assert_close(of_longer, of_all if latents > 5 else next_token_loss(nll))


@pytest.mark.parametrize("latents", [1, 5, 17])
def test_tokens_of_a_clip_are_summed_where_that_is_asked(latents: int):
    nll = torch.rand(4, latents, 2, 3)
    weights = torch.ones_like(nll)
    weights[:, :5] = 2.5
    by_hand = (weights * nll).flatten(1).sum(dim=1).mean()  # Eq. 2 as it is written, of each clip
    summed = early_frame_weighted_loss(
        nll, early_frame_weight=1.5, early_latents=5, reduction="sum"
    )
    torch.testing.assert_close(summed, by_hand)


def test_refusals():
    with pytest.raises(ValueError, match=r"-0\.1"):
        early_frame_weighted_loss(torch.rand(1, 1, 2, 2), early_frame_weight=-0.1, early_latents=1)
    with pytest.raises(ValueError, match="early_latents 0"):
        early_frame_weighted_loss(torch.rand(1, 1, 2, 2), early_frame_weight=1, early_latents=0)


def test_frame_ranges():
    nll = torch.arange(17.0).view(1, 17, 1, 1).requires_grad_()
    losses = frame_range_losses(nll, CODEC)
    assert {name: loss.item() for name, loss in losses.items()} == {
        "loss_frames_1": 0.0,
        "loss_frames_2_17": 2.5,
        "loss_frames_18_49": 8.5,
        "loss_frames_50_65": 14.5,
    }
    assert not any(loss.requires_grad for loss in losses.values())
    assert list(frame_range_losses(nll[:, :5], CODEC)) == ["loss_frames_1", "loss_frames_2_17"]
    assert list(frame_range_losses(nll[:, :1], CODEC)) == ["loss_frames_1"]


def test_ranges_that_a_codec_cannot_part_are_absent():
    nll = torch.arange(20.0).view(1, 20, 1, 1)
    chunks = CODEC.model_copy(update={"time": ChunkedFrames(chunk_frames=17, chunk_latents=5)})
    assert frame_range_losses(nll, chunks) == {}
    pairs = CODEC.model_copy(update={"time": ChunkedFrames(chunk_frames=1, chunk_latents=1)})
    assert frame_range_losses(nll, pairs)["loss_frames_2_17"].item() == 8.5


def test_text_rows_of_the_head_are_never_touched(model: LongtakeLlama):
    model.zero_grad()
    next_token_loss(token_nll(model, build_batch(model.config, [[1, 2]], clip(1, 2)))).backward()
    gradient = model.lm_head.weight.grad
    assert gradient is not None
    video = model.config.vocabulary.video_ids
    assert gradient[: video.start].abs().max() == 0
    assert gradient[video.stop :].abs().max() == 0
    assert gradient[video].abs().sum() > 0
    model.zero_grad()
