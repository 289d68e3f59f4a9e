"""Generation of one window, token by token, with a key-value cache (Loong, sec. 3.1).

Shapes: B batch, T H W latent frames, rows and columns, L video tokens to generate.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from models.autoregressive.cache import KVCache
from models.autoregressive.loong.decoding import StepDecoder
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import build_prompts
from models.autoregressive.sampling import Sampling, draw_uniforms, guide, sample


def generate_tokens(
    model: LongtakeLlama,
    text_ids: Sequence[Sequence[int]],
    *,
    latent_frames: int,
    height: int,
    width: int,
    sampling: Sampling,
    generator: torch.Generator | Sequence[torch.Generator],
    prefix_codes: Tensor | None = None,
    on_token: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample v_i ~ p(v_i | v_<i, t) until the clip is full.

    Only video codes are drawn: the shape of the clip says where it ends. Prompts may differ in
    length. A sequence comes out the same alone and in a batch, up to float rounding. With guidance,
    each takes a second row in the batch.

    Args:
        model: The decoder; it decides the device and the type of the cache.
        text_ids: One prompt per clip; an empty prompt is allowed.
        latent_frames: Latent frames of the whole clip, with the prefix.
        height: Rows of a latent frame.
        width: Columns of a latent frame.
        sampling: How a token is drawn.
        generator: One per clip, or a single one for a batch of one.
        prefix_codes: (B, T, H, W) codes of the clip's first latent frames; None means none.
        on_token: Called after each step with the number of tokens generated in every clip.

    Returns:
        (B, latent_frames, height, width) codes in [0, vocabulary.video), the prefix first.

    Raises:
        ValueError: If the prefix leaves nothing to generate or has another frame size, there is
            not one generator per prompt, or the sequence exceeds the model's `max_positions`.
    """
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != len(text_ids):
        raise ValueError(f"{len(generators)} generators for {len(text_ids)} prompts; give each one")
    if min(latent_frames, height, width) < 1:
        raise ValueError(f"clip of shape {(latent_frames, height, width)} has no tokens")
    if prefix_codes is not None:
        _check_prefix(prefix_codes, latent_frames, height, width)
    known = 0 if prefix_codes is None else prefix_codes.shape[1]
    codes_BL = _generate(
        model,
        text_ids,
        (latent_frames - known) * height * width,
        sampling,
        generators,
        prefix_codes,
        on_token,
    ).clone()  # a plain tensor again, not one of inference mode
    new_BTHW = rearrange(codes_BL, "B (T H W) -> B T H W", H=height, W=width)
    if prefix_codes is None:
        return new_BTHW
    return torch.cat((prefix_codes.to(new_BTHW), new_BTHW), dim=1)


@torch.inference_mode()
def _generate(
    model: LongtakeLlama,
    text_ids: Sequence[Sequence[int]],
    count: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    prefix_codes: Tensor | None,
    on_token: Callable[[int], None] | None,
) -> Tensor:
    """Return `count` new codes per prompt, (B, count)."""
    config = model.config
    weight = model.lm_head.weight
    if sampling.guided:  # the same clips once more, after an empty prompt
        text_ids = [*text_ids, *([] for _ in text_ids)]
        prefix_codes = None if prefix_codes is None else torch.cat((prefix_codes, prefix_codes))
    prompts = build_prompts(config, text_ids, prefix_codes)
    ids_BS = prompts.ids_BS.to(weight.device)
    positions = ids_BS.shape[1] + count - 1  # the last token is drawn and not read
    if positions > config.max_positions:
        raise ValueError(
            f"a sequence of {positions} tokens exceeds max_positions {config.max_positions}"
        )
    padding_B = None if prompts.padding_B is None else prompts.padding_B.to(weight.device)
    cache = KVCache(
        config,
        len(ids_BS),
        positions,
        padding_B=padding_B,
        device=weight.device,
        dtype=weight.dtype,
    )
    uniforms_LB = draw_uniforms(generators, count).t().contiguous().to(weight.device)
    step = StepDecoder(model, positions)
    codes: list[Tensor] = []
    logits_BV = model.logits(model.hidden(ids_BS, cache=cache)[:, -1], config.vocabulary.video_ids)
    for index in range(count):
        if codes:
            logits_BV = step(codes[-1].repeat(2) if sampling.guided else codes[-1], cache)
        codes.append(sample(guide(logits_BV, sampling), uniforms_LB[index], sampling))
        if on_token is not None:
            on_token(index + 1)
    return torch.stack(codes, dim=1)


def _check_prefix(prefix_BTHW: Tensor, latent_frames: int, height: int, width: int) -> None:
    if prefix_BTHW.dim() != 4 or tuple(prefix_BTHW.shape[2:]) != (height, width):
        raise ValueError(
            f"prefix of shape {tuple(prefix_BTHW.shape)} does not have frames of {height}x{width}"
        )
    if not 1 <= prefix_BTHW.shape[1] < latent_frames:
        raise ValueError(
            f"prefix of {prefix_BTHW.shape[1]} latent frames; allowed are 1 to {latent_frames - 1} "
            f"in a clip of {latent_frames}"
        )
