"""The clustering VQ: the published numbers, its memory chunks, and its online re-initialisation."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.tokenizer import anchors
from models.tokenizer.config import CVQConfig
from models.tokenizer.cvq import ClusteringVQ

GOLDEN = Path(__file__).parents[2] / "golden"


def quantizer(**changes: object) -> ClusteringVQ:
    torch.manual_seed(0)
    return ClusteringVQ(CVQConfig(**{"size": 16, "dim": 4, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [anchors.CHUNK_ELEMENTS, 32 * 5])
@pytest.mark.parametrize("kind", ["cos", "l2", "l2_contras"])
def test_every_step_equals_the_golden(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 32 features at once, or 5; the contrastive term takes all codes at once, or one
    monkeypatch.setattr(anchors, "CHUNK_ELEMENTS", chunk)
    gold = load_file(GOLDEN / f"cvq_closest_{kind}.safetensors")
    distance, _, contras = kind.partition("_")
    vq = quantizer(
        size=32, dim=8, distance=distance, anchor="closest", contrastive_weight=float(bool(contras))
    )
    with torch.no_grad():
        vq.codebook.copy_(gold["in.codebook0"])
    for step, z_BCHW in enumerate(gold["in.z"]):
        z = z_BCHW[:, :, None].clone().requires_grad_()
        out = vq(z)
        zq_BCHW = out.quantized_BCTHW[:, :, 0]
        wave = torch.arange(zq_BCHW.numel()).float().sin().view_as(zq_BCHW)
        vq.codebook.grad = None
        (out.loss + (zq_BCHW * wave).mean()).backward()
        assert z.grad is not None
        assert vq.codebook.grad is not None
        assert torch.equal(out.ids_BTHW.flatten(), gold["out.indices"][step].long())
        for ours, name in (
            (zq_BCHW, "zq"),
            (out.loss, "loss"),
            (out.perplexity, "perplexity"),
            (vq.usage_K, "embed_prob"),
            (vq.codebook, "codebook"),
            (z.grad[:, :, 0], "grad_z"),
            (vq.codebook.grad, "grad_codebook"),
        ):
            torch.testing.assert_close(ours, gold[f"out.{name}"][step], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("anchor", ["closest", "probrandom"])
def test_unused_codes_move_to_features_and_used_ones_stay(anchor: str) -> None:
    vq = quantizer(anchor=anchor, distance="l2")
    with torch.no_grad():
        vq.codebook[:8] = torch.cat([torch.eye(4), 2 * torch.eye(4)])
        vq.codebook[8:] = 100.0
    before = vq.codebook.detach().clone()
    z = vq.codebook[:8].detach().repeat(4, 1).t().reshape(1, 4, 2, 4, 4)
    for _ in range(5):
        vq(z)
    assert torch.allclose(vq.codebook[:8], before[:8], atol=1e-3)
    moved = torch.cdist(vq.codebook[8:].detach(), before[:8]).amin(dim=1)
    assert moved.max() < 0.1  # each sits on some feature


def test_probrandom_draws_by_softmax_over_the_batch() -> None:
    vq = quantizer(distance="l2", size=20_000)
    rows = torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.5, 0]])
    codes = torch.zeros(20_000, 4)
    uniform = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = anchors.probable(rows, codes, vq.similarity, uniform)
    share = torch.stack([(drawn == row).all(dim=1).float().mean() for row in rows])
    expected = torch.softmax(torch.tensor([0.0, -1.0, -2.25]), dim=0)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_probrandom_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(2, 4, 3, 5, 5)
    whole, chunked = quantizer(), quantizer()
    whole(z)
    monkeypatch.setattr(anchors, "CHUNK_ELEMENTS", 16 * 7)
    chunked(z)
    assert torch.equal(whole.codebook, chunked.codebook)


def test_resume_continues_the_straight_run() -> None:
    batches = torch.randn(6, 1, 4, 3, 4, 4)
    straight = quantizer()
    for z in batches:
        straight(z)
    first, second = quantizer(), quantizer(size=16)
    for z in batches[:3]:
        first(z)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(99)  # no global randomness may enter
    for z in batches[3:]:
        second(z)
    assert torch.equal(straight.codebook, second.codebook)
    assert torch.equal(straight.usage_K, second.usage_K)


def test_draws_differ_between_updates_and_seeds() -> None:
    z = torch.randn(1, 4, 3, 8, 8)
    one, other = quantizer(size=64, seed=0), quantizer(size=64, seed=1)
    one(z)
    other(z)
    assert not torch.equal(one.codebook, other.codebook)


def test_the_contrastive_term_moves_codes_only_and_not_in_eval_mode() -> None:
    z = torch.randn(1, 4, 3, 4, 4, requires_grad=True)
    plain, term = quantizer(), quantizer(contrastive_weight=0.5)
    with_term, without = term(z).loss, plain(z).loss
    assert with_term > without
    (difference,) = torch.autograd.grad(with_term - without, z, retain_graph=True)
    assert difference.abs().max() < 1e-7
    assert torch.equal(quantizer(contrastive_weight=0.5).eval()(z).loss, without)


def test_eval_mode_and_nearest_change_nothing() -> None:
    vq = quantizer()
    before = {key: value.clone() for key, value in vq.state_dict().items()}
    vq.nearest(torch.randn(1, 4, 1, 4, 4))
    vq.eval()(torch.randn(1, 4, 1, 4, 4))
    assert all(torch.equal(value, before[key]) for key, value in vq.state_dict().items())
