"""Models on a GPU do what they do on a CPU: ``pytest -m gpu`` where there is one."""

import copy

import pytest
import torch

from models.autoregressive.loong import (
    ARConfig,
    LongtakeLlama,
    Sampling,
    Vocabulary,
    build_batch,
    generate_tokens,
    next_token_loss,
    token_nll,
)
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOKENIZER = TokenizerConfig(
    height_px=32, width_px=32, channels=16, channel_multipliers=(1, 2, 2, 2),
    res_blocks=(1, 1, 1, 1), middle_blocks=1, groups=4, codebook=CVQConfig(size=64, dim=8),
)  # fmt: skip
DECODER = ARConfig(
    vocabulary=Vocabulary(text=50, video=64), hidden=64, intermediate=96, layers=3, heads=4,
    kv_heads=2, init_std=0.2, max_text_tokens=8, max_positions=256,
)  # fmt: skip
TEXT = [[1, 2, 3], [], [4, 5, 6, 7, 8]]


@pytest.fixture(autouse=True)
def full_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def tokenizer() -> VideoTokenizer:
    torch.manual_seed(0)
    model = VideoTokenizer(TOKENIZER).eval()
    with torch.no_grad():
        model.quantizer.codebook.normal_()
    return model


@pytest.fixture
def decoder() -> LongtakeLlama:
    torch.manual_seed(0)
    return LongtakeLlama(DECODER).eval()


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 17])
def test_clips_are_encoded_and_decoded_alike(tokenizer: VideoTokenizer, frames: int) -> None:
    x_BCTHW = torch.rand(2, 3, frames, 32, 32) * 2 - 1
    gpu = copy.deepcopy(tokenizer).cuda()
    torch.testing.assert_close(
        gpu.encoder(x_BCTHW.cuda()).cpu(), tokenizer.encoder(x_BCTHW), rtol=1e-3, atol=1e-4
    )
    codes = tokenizer.encode(x_BCTHW)
    found = gpu.encode(x_BCTHW.cuda()).cpu()
    assert (found == codes).float().mean() > 0.98  # two codes may be equally near, but for rounding
    torch.testing.assert_close(
        gpu.decode(codes.cuda()).cpu(), tokenizer.decode(codes), rtol=1e-3, atol=1e-4
    )


def test_loss_and_gradients_are_alike(decoder: LongtakeLlama) -> None:
    codes_BTHW = torch.randint(64, (3, 3, 4, 4))
    gpu = copy.deepcopy(decoder).cuda()
    losses = []
    for model, device in ((decoder, "cpu"), (gpu, "cuda")):
        batch = build_batch(DECODER, TEXT, codes_BTHW.to(device)).to(device)
        loss = next_token_loss(token_nll(model, batch))
        loss.backward()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for (name, p), q in zip(decoder.named_parameters(), gpu.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-3, atol=1e-5, msg=name)


def generated(model: LongtakeLlama, sampling: Sampling) -> torch.Tensor:
    draws = [torch.Generator().manual_seed(row) for row in range(len(TEXT))]
    return generate_tokens(
        model, TEXT, latent_frames=4, height=4, width=4, sampling=sampling, generator=draws
    ).cpu()


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(top_k=8, guidance_scale=2.0)])
def test_videos_are_generated_alike(decoder: LongtakeLlama, sampling: Sampling) -> None:
    on_cpu = generated(decoder, sampling)
    assert torch.equal(generated(copy.deepcopy(decoder).cuda(), sampling), on_cpu)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "agree"), [(torch.float32, 1.0), (torch.bfloat16, 0.95)])
def test_cached_steps_equal_one_pass(
    decoder: LongtakeLlama, dtype: torch.dtype, agree: float
) -> None:
    gpu = decoder.cuda().to(dtype)
    codes = generated(gpu, Sampling(top_k=1)).cuda()
    batch = build_batch(DECODER, TEXT, codes).to("cuda")
    logits = gpu(batch.ids_BS)[..., DECODER.vocabulary.video_ids]
    for row, start in enumerate(batch.video_start_B.tolist()):
        wanted = logits[row, start - 1 : start + 63].argmax(dim=-1)
        assert (codes[row].flatten() == wanted).float().mean() >= agree
