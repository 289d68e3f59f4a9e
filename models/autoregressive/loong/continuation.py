"""Likelihood of true film after a join of two windows, nothing sampled (Loong, Fig. 5).

```
window 0   true frames  0 ... window - 1, encoded  ─▶ the last of its tokens: naive
window 1   true frames      window - n ...         ─▶ n known | as many as follow: the truth
```

The tokens that window 1 begins with are those of a fresh clip (re-encode) or the last ones of
window 0 (naive). What follows is the same either way, so the strategies differ in what the model
is shown, and in nothing else.

Shapes: B film, C colours, F frames, T H W latent frames, rows and columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.autoregressive.loong.extension import Strategy
from models.autoregressive.loong.loss import token_nll
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import build_batch
from models.codec import VideoCodec


class Continuation(NamedTuple):
    """What becomes of each film."""

    disagreement_B: Tensor
    """Share of the known tokens that are others than those of a fresh clip, 0 to 1."""
    nll_B: Tensor
    """Mean -log p of the true tokens after the known ones, in nats."""


def film_frames(window_frames: int, reencode_frames: int) -> int:
    """Return the frames of a film that holds two windows with an overlap."""
    return 2 * window_frames - reencode_frames


@torch.no_grad()
def continue_film(
    model: LongtakeLlama,
    codec: VideoCodec,
    text_ids: Sequence[Sequence[int]],
    x_BCFHW: Tensor,
    *,
    reencode_frames: int,
    strategy: Strategy,
) -> Continuation:
    """Let a model go on with true films where the second of two windows begins.

    Args:
        model: The decoder.
        codec: The one whose codes the model was trained on; on the model's device.
        text_ids: The prompt of each film.
        x_BCFHW: `film_frames` of pixels in [-1, 1].
        reencode_frames: n, the last frames of a window that open the next one.
        strategy: How they enter it.

    Raises:
        ValueError: The codec makes no such windows, or a sequence is too long for the model.
    """
    window = (x_BCFHW.shape[2] + reencode_frames) // 2
    known = codec.spec.latents_of_frames(reencode_frames)
    before_BTHW = codec.encode(x_BCFHW[:, :, :window])
    fresh_BTHW = codec.encode(x_BCFHW[:, :, window - reencode_frames :])
    true_BTHW = fresh_BTHW[:, :known]
    known_BTHW = true_BTHW if strategy == "re-encode" else before_BTHW[:, -known:]
    codes_BTHW = torch.cat((known_BTHW, fresh_BTHW[:, known:]), dim=1)
    batch = build_batch(model.config, text_ids, codes_BTHW.cpu()).to(x_BCFHW.device)
    return Continuation(
        (known_BTHW != true_BTHW).float().flatten(1).mean(dim=1),
        token_nll(model, batch)[:, known:].flatten(1).mean(dim=1),
    )
