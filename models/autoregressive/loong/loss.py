"""Next-token loss of the video tokens, plain and weighted by frame (Loong, eq. 1 and 2).

Shapes: B batch, S tokens, L video tokens, T H W latent frames, rows and columns, D hidden, P tokens
of a rank's stretch, V video ids.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import TokenBatch
from models.codec import CodecSpec
from models.common.ulysses import Ulysses

FRAME_RANGES = ((1, 1), (2, 17), (18, 49), (50, 65))
"""First and last frame, from 1 on, of each range of the paper's figure 3."""
_NO_TARGET = -100

Reduction = Literal["mean", "sum"]
WeightedClips = Literal["all", "longer"]


def token_nll(model: LongtakeLlama, batch: TokenBatch) -> Tensor:
    """-log p(v_i | v_<i, t) of every video token, in nats.

    The softmax runs over the video ids alone: the shape of the clip is given, so at these
    positions no other id can come next (see the README).

    Args:
        model: The decoder. Where it shares sequences out, all its ranks call this.
        batch: Sequences on the model's device, the same on all ranks.

    Returns:
        (B, T, H, W), float32, the same on all ranks.
    """
    tokens = batch.codes_BTHW[0].numel()
    # The state at a position predicts the token after it.
    offsets_L = torch.arange(tokens, device=batch.ids_BS.device)
    predicting_BL = batch.video_start_B[:, None] - 1 + offsets_L
    hidden_BSD = model.hidden(batch.ids_BS)
    if model.ulysses is not None:
        nll_BL = _shared_nll(model, model.ulysses, hidden_BSD, batch, predicting_BL)
        return nll_BL.view_as(batch.codes_BTHW)
    hidden_BLD = hidden_BSD.gather(1, predicting_BL[..., None].expand(-1, -1, hidden_BSD.shape[2]))
    logits_BLV = model.logits(hidden_BLD, model.config.vocabulary.video_ids)
    nll = F.cross_entropy(
        logits_BLV.flatten(0, 1).float(), batch.codes_BTHW.flatten(), reduction="none"
    )
    return nll.view_as(batch.codes_BTHW)


def _shared_nll(
    model: LongtakeLlama,
    ulysses: Ulysses,
    hidden_BPD: Tensor,
    batch: TokenBatch,
    predicting_BL: Tensor,
) -> Tensor:
    """`token_nll` where ranks hold stretches: each computes the logits of its own only."""
    codes_BL = batch.codes_BTHW.flatten(1)
    targets_BS = torch.full_like(batch.ids_BS, _NO_TARGET).scatter(1, predicting_BL, codes_BL)
    targets_BP = ulysses.stretch(targets_BS, _NO_TARGET)
    logits_BPV = model.logits(hidden_BPD, model.config.vocabulary.video_ids)
    nll_BP = F.cross_entropy(
        logits_BPV.flatten(0, 1).float(),
        targets_BP.flatten(),
        ignore_index=_NO_TARGET,
        reduction="none",
    ).view_as(targets_BP)
    return ulysses.gather(nll_BP).gather(1, predicting_BL)


def next_token_loss(nll_BTHW: Tensor) -> Tensor:
    """Eq. 1, as a mean per token.

    The paper sums over the L tokens of a sequence. We divide by L (and average over the batch), so
    that one learning rate serves clips of every length.

    Args:
        nll_BTHW: From `token_nll`.

    Returns:
        A scalar, nats per token.
    """
    return nll_BTHW.mean()


def early_frame_weighted_loss(
    nll_BTHW: Tensor,
    *,
    early_frame_weight: float,
    early_latents: int,
    reduction: Reduction = "mean",
    weighted: WeightedClips = "all",
) -> Tensor:
    """Eq. 2: tokens of the first frames count 1 + λ, the others 1.

    With "mean" the sum is divided by the number of tokens L, as in `next_token_loss`, and not by
    the sum of the weights: λ = 0 gives eq. 1, and the gradient of late frames does not depend on λ.

    Args:
        nll_BTHW: From `token_nll`.
        early_frame_weight: λ, at least 0; the paper trains with 1 in its last stage.
        early_latents: Latent frames that count as early, those of the paper's first 17 frames; K is
            the number of their tokens.
        reduction: "sum" adds up the tokens of a clip, as the paper writes it; clips are averaged
            either way.
        weighted: "all" takes Eq. 2 as it stands, so that a clip of no more than K tokens is all
            early and counts 1 + λ; "longer" leaves such clips to eq. 1.

    Returns:
        A scalar; nats per token ("sum": per clip) when λ = 0.

    Raises:
        ValueError: If λ is negative, or there is no early latent frame.
    """
    if early_frame_weight < 0:
        raise ValueError(f"early_frame_weight {early_frame_weight} must not be negative")
    if early_latents < 1:
        raise ValueError(f"early_latents {early_latents}; at least 1 is needed")
    if weighted == "longer" and nll_BTHW.shape[1] <= early_latents:
        early_frame_weight = 0.0
    early_sum = nll_BTHW[:, :early_latents].sum()
    loss = nll_BTHW.mean() + early_frame_weight * early_sum / nll_BTHW.numel()
    return loss * nll_BTHW[0].numel() if reduction == "sum" else loss


def frame_range_losses(nll_BTHW: Tensor, codec: CodecSpec) -> dict[str, Tensor]:
    """Eq. 1 for each range of frames of the paper's figure 3, as metrics without gradient.

    Args:
        nll_BTHW: From `token_nll`, or an average of several.
        codec: Says which latent frames are those of a range.

    Returns:
        Means in nats per token under `loss_frames_1`, `loss_frames_2_17`, `loss_frames_18_49` and
        `loss_frames_50_65`; a range is absent where the clip does not cover it whole, or where a
        latent frame of the codec spans its border.
    """
    losses = {}
    for first, last in FRAME_RANGES:
        if not codec.fits(last) or (first > 1 and not codec.fits(first - 1)):
            continue
        begin = codec.time.latents(first - 1) if first > 1 else 0
        end = codec.time.latents(last)
        if end <= nll_BTHW.shape[1]:
            name = f"loss_frames_{first}" if first == last else f"loss_frames_{first}_{last}"
            losses[name] = nll_BTHW[:, begin:end].detach().mean()
    return losses
