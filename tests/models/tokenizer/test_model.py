"""The tokenizer: causality at every frame, shapes, gradients, refusals, and that it learns."""

import pytest
import torch

from models.evaluation.reconstruction import (
    constant_colour_psnr_db,
    psnr_db,
    psnr_per_frame_db,
)
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer, parameter_count
from models.tokenizer.layers import AdaptiveNorm

TINY = TokenizerConfig(
    height_px=16,
    width_px=16,
    channels=8,
    channel_multipliers=(1, 1, 2, 2),
    res_blocks=(1, 1, 1, 1),
    middle_blocks=1,
    groups=4,
    codebook=CVQConfig(size=64, dim=8),
)

ADAPTIVE = TINY.model_copy(update={"adaptive_norm": True})


def tokenizer(config: TokenizerConfig = TINY) -> VideoTokenizer:
    torch.manual_seed(0)
    model = VideoTokenizer(config)
    with torch.no_grad():
        model.quantizer.codebook.normal_()
        for layer in model.modules():
            if isinstance(layer, AdaptiveNorm):  # begins with weights of zero
                layer.scale.weight.normal_()
                layer.shift.weight.normal_()
    return model


def clip(frames: int, batch: int = 1, size: int = 16) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, frames, size, size, generator=draws) * 2 - 1


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (17, 5), (65, 17)])
def test_frames_become_a_quarter_and_come_back(frames: int, latents: int) -> None:
    model, x = tokenizer().eval(), clip(frames)
    ids = model.encode(x)
    assert ids.shape == (1, latents, 2, 2) == (1, *TINY.latent_shape(frames))
    assert ids.dtype == torch.long
    y = model.decode(ids)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_the_papers_clip_is_17_16_16_tokens() -> None:
    assert TokenizerConfig().latent_shape(65) == (17, 16, 16)


@torch.no_grad()
@pytest.mark.parametrize("frame", range(17))
def test_encoder_is_causal_at_every_frame(frame: int) -> None:
    model, x = tokenizer().eval(), clip(17)
    whole = model.encoder(x)
    changed = x.clone()
    changed[:, :, frame:] = torch.rand_like(changed[:, :, frame:])
    first = -(-frame // 4)  # the first latent that may see this frame: ceil(frame / 4)
    different = (model.encoder(changed) - whole).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert not different[:first].any()
    assert different[first:].any()


@torch.no_grad()
@pytest.mark.parametrize("latent", range(5))
@pytest.mark.parametrize("config", [TINY, ADAPTIVE], ids=["plain", "adaptive"])
def test_decoder_is_causal_at_every_latent(latent: int, config: TokenizerConfig) -> None:
    model = tokenizer(config).eval()
    z = torch.randn(1, 8, 5, 2, 2)
    whole = model.decoder(z)
    changed = z.clone()
    changed[:, :, latent:] += 1
    first = max(0, 4 * latent - 3)  # frames 4k-3 .. 4k are latent k's own
    different = (model.decoder(changed) - whole).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert not different[:first].any()
    assert different[first]


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, ADAPTIVE], ids=["plain", "adaptive"])
def test_truncating_equals_the_whole(config: TokenizerConfig) -> None:
    model, x = tokenizer(config).eval(), clip(17)
    z = model.encoder(x)
    y = model.decoder(z)
    for latents in range(1, 6):
        frames = 4 * latents - 3
        torch.testing.assert_close(model.encoder(x[:, :, :frames]), z[:, :, :latents])
        torch.testing.assert_close(model.decoder(z[:, :, :latents]), y[:, :, :frames])


@torch.no_grad()
def test_a_still_clip_has_the_features_of_its_image() -> None:
    model, x = tokenizer().eval(), clip(1)
    still = model.encoder(x.expand(-1, -1, 9, -1, -1))
    torch.testing.assert_close(still, model.encoder(x).expand_as(still))


def test_clips_of_a_batch_do_not_mix() -> None:
    model, x = tokenizer().eval(), clip(5, batch=3)
    assert torch.equal(model.encode(x)[1:2], model.encode(x[1:2]))


@pytest.mark.parametrize("config", [TINY, ADAPTIVE], ids=["plain", "adaptive"])
def test_gradient_reaches_the_encoder_through_the_codes(config: TokenizerConfig) -> None:
    model = tokenizer(config)
    model(clip(5)).losses["l1"].backward()  # the codebook loss left out: straight-through only
    for name, parameter in model.named_parameters():
        if name == "quantizer.codebook":
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_gradient_of_the_codebook_loss_reaches_the_codebook() -> None:
    model = tokenizer()
    model(clip(5)).losses["commitment"].backward()
    assert model.quantizer.codebook.grad is not None
    assert model.quantizer.codebook.grad.abs().sum() > 0


def test_the_loss_is_the_weighted_sum() -> None:
    config = TINY.model_copy(update={"l1_weight": 2.0, "l2_weight": 3.0, "commitment_weight": 0.5})
    out = tokenizer(config).eval()(clip(5))
    parts = out.losses
    expected = 2 * parts["l1"] + 3 * parts["l2"] + 0.5 * parts["commitment"]
    torch.testing.assert_close(out.loss, expected)


def test_encode_leaves_a_training_model_as_it_is() -> None:
    model = tokenizer().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.decode(model.encode(clip(5)))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_forward_and_encode_give_the_same_ids() -> None:
    model = tokenizer().eval()
    assert torch.equal(model(clip(9)).ids_BTHW, model.encode(clip(9)))


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (clip(5) * 1.01, r"\[-1, 1\]"),
        ((clip(5) + 1) * 127.5, "127.5"),
        (clip(5).mul(float("nan")), r"\[-1, 1\]"),
        ((clip(5) * 100).to(torch.uint8), "uint8"),
        (clip(4), "1 and 5"),
        (clip(5, size=12), "multiples of 8"),
        (clip(5)[0], r"\(B, 3, T, H, W\)"),
    ],
)
def test_bad_frames_are_refused(frames: torch.Tensor, says: str) -> None:
    model = tokenizer()
    with pytest.raises(ValueError, match=says):
        model.encode(frames)
    with pytest.raises(ValueError, match=says):
        model(frames)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (torch.full((1, 1, 2, 2), 64), "0 to 63"),
        (torch.full((1, 1, 2, 2), -1), "0 to 63"),
        (torch.zeros(1, 1, 2, 2), "integers"),
        (torch.zeros(1, 2, 2, dtype=torch.long), "B, T, H, W"),
    ],
)
def test_bad_ids_are_refused(ids: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tokenizer().decode(ids)


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (1, 0, 2, 2), (1, 1, 0, 2), (1, 1, 2, 0)])
def test_no_latents_are_refused(shape: tuple[int, ...]) -> None:
    none = torch.zeros(shape, dtype=torch.long)
    model = tokenizer()
    one = torch.zeros((1, 1, 2, 2), dtype=torch.long)
    for decode in (
        lambda: model.decode(none),
        lambda: list(model.decode_stream([none])),
        lambda: list(model.decode_stream([one, none])),
    ):
        with pytest.raises(ValueError, match=r"expected integers .*, each of them at least 1$"):
            decode()


def test_spatial_levels_are_causal_and_cheaper() -> None:
    spatial = TINY.model_copy(update={"temporal_kernels": (1, 1, 3, 3)})
    assert parameter_count(spatial) < parameter_count(TINY)
    assert tokenizer(spatial).eval().encode(clip(17)).shape == (1, 5, 2, 2)


def test_the_adaptive_norm_adds_two_maps_of_a_code_to_each_level() -> None:
    added = 2 * (TINY.codebook.dim + 1) * sum(TINY.level_channels)
    assert parameter_count(ADAPTIVE) == parameter_count(TINY) + added


def test_parameter_count_needs_no_memory() -> None:
    assert parameter_count(TINY) == sum(p.numel() for p in tokenizer().parameters())
    assert 300e6 < parameter_count(TokenizerConfig()) < 400e6


@pytest.mark.parametrize(
    "changes",
    [{"groups": 3}, {"temporal_kernels": (2, 3, 3, 3)}, {"height_px": 100}, {"res_blocks": (1, 1)}],
)
def test_bad_configs_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"groups|temporal|multiple|res_blocks"):
        TokenizerConfig(**{**TINY.model_dump(exclude={"codebook"}), **changes})


@pytest.mark.parametrize("config", [TINY, ADAPTIVE], ids=["plain", "adaptive"])
def test_it_learns_more_than_a_solid_colour_in_every_frame(config: TokenizerConfig) -> None:
    model = tokenizer(config)
    rows = torch.linspace(-3, 3, 16)
    shift = torch.arange(9)[:, None, None] * 0.4
    wave = torch.sin(rows[:, None] + 0.5 * rows + shift)
    x = torch.stack([wave, wave.flip(-1), -wave])[None] * 0.8
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    start = model(x).losses["l1"].item()
    for _ in range(60):
        optimizer.zero_grad()
        model(x).loss.backward()
        optimizer.step()
    assert model(x).losses["l1"].item() < start / 2
    y = model.eval().decode(model.encode(x))
    floor = constant_colour_psnr_db(x)
    assert psnr_db(x, y) > floor + 3
    assert min(psnr_per_frame_db(x, y)) > floor + 2  # the last frames too
