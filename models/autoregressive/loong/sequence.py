"""Sequences of text and video tokens, for training and for generation (Loong, sec. 3.1).

```
begin_of_text  text...  end_of_text  begin_of_video  video...  end_of_video
```

Shapes: B batch, S tokens, T H W latent frames, rows and columns, L = T*H*W video tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.vocabulary import Vocabulary

SPECIALS_PER_SEQUENCE = 4


@dataclass(frozen=True)
class TokenBatch:
    """Sequences for training: the clips have one shape, the prompts any length.

    Attributes:
        ids_BS: Token ids. Shorter rows are filled with `pad` on the right, after `end_of_video`,
            where causal attention keeps it from every real token without a mask.
        video_start_B: Position of the first video token in each row.
        codes_BTHW: The clips as codes of the codebook: the targets.
    """

    ids_BS: Tensor
    video_start_B: Tensor
    codes_BTHW: Tensor

    def to(self, device: torch.device | str) -> "TokenBatch":
        """Copy the batch to a device."""
        return TokenBatch(
            self.ids_BS.to(device), self.video_start_B.to(device), self.codes_BTHW.to(device)
        )


@dataclass(frozen=True)
class PromptBatch:
    """Beginnings of sequences for generation, aligned at their ends.

    Attributes:
        ids_BS: Token ids. Shorter rows are filled with `pad` on the left.
        padding_B: Number of `pad` tokens in each row; None when there are none at all.
    """

    ids_BS: Tensor
    padding_B: Tensor | None


def build_batch(
    config: ARConfig, text_ids: Sequence[Sequence[int]], codes_BTHW: Tensor
) -> TokenBatch:
    """Join prompts and clips into training sequences.

    Args:
        config: The model's shape: its vocabulary and its limit on text tokens.
        text_ids: One prompt per clip, of any length; what exceeds `config.max_text_tokens` is cut.
        codes_BTHW: Codes of the codebook in [0, vocabulary.video), on the CPU.

    Raises:
        ValueError: If prompts and clips differ in number, or an id is out of range.
    """
    vocabulary = config.vocabulary
    prompts = _prompts(config, text_ids, len(codes_BTHW))
    video_BL = _video_ids(vocabulary, codes_BTHW)
    starts = [len(prompt) for prompt in prompts]
    length = max(starts) + video_BL.shape[1] + 1
    ids_BS = torch.full((len(prompts), length), vocabulary.pad)
    for row, (prompt, video_L) in enumerate(zip(prompts, video_BL, strict=True)):
        end = len(prompt) + len(video_L)
        ids_BS[row, : len(prompt)] = torch.tensor(prompt)
        ids_BS[row, len(prompt) : end] = video_L
        ids_BS[row, end] = vocabulary.end_of_video
    return TokenBatch(ids_BS, torch.tensor(starts), codes_BTHW.long())


def build_prompts(
    config: ARConfig, text_ids: Sequence[Sequence[int]], prefix_codes_BTHW: Tensor | None = None
) -> PromptBatch:
    """Join prompts, and the first latent frames where they are known, for generation.

    Args:
        config: The model's shape: its vocabulary and its limit on text tokens.
        text_ids: One prompt per clip, of any length; cut as in training.
        prefix_codes_BTHW: Codes of the clip's first latent frames; None means none are known.

    Raises:
        ValueError: If prompts and clips differ in number, or an id is out of range.
    """
    batch = len(text_ids) if prefix_codes_BTHW is None else len(prefix_codes_BTHW)
    prompts = _prompts(config, text_ids, batch)
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    pad = config.vocabulary.pad
    ids_BS = torch.tensor(
        [[pad] * count + prompt for count, prompt in zip(padding, prompts, strict=True)]
    )
    if prefix_codes_BTHW is not None:
        video_BL = _video_ids(config.vocabulary, prefix_codes_BTHW.cpu())
        ids_BS = torch.cat((ids_BS, video_BL), dim=1)
    return PromptBatch(ids_BS, torch.tensor(padding) if any(padding) else None)


def _prompts(config: ARConfig, text_ids: Sequence[Sequence[int]], batch: int) -> list[list[int]]:
    """Each prompt with its special tokens, up to the place where the video begins."""
    if len(text_ids) != batch or not batch:
        raise ValueError(f"{len(text_ids)} prompts for {batch} clips; give one prompt per clip")
    vocabulary = config.vocabulary
    prompts = []
    for row in text_ids:
        text = [int(token) for token in row[: config.max_text_tokens]]
        for token in text:
            if not 0 <= token < vocabulary.text:
                raise ValueError(f"text id {token} is not in [0, {vocabulary.text})")
        opening, closing = [vocabulary.begin_of_text], [vocabulary.end_of_text]
        prompts.append([*opening, *text, *closing, vocabulary.begin_of_video])
    return prompts


def _video_ids(vocabulary: Vocabulary, codes_BTHW: Tensor) -> Tensor:
    """Codes in raster order (time, then rows, then columns) as ids (B, L)."""
    if codes_BTHW.dim() != 4:
        raise ValueError(
            f"codes of shape {tuple(codes_BTHW.shape)}; expected (batch, time, rows, columns)"
        )
    codes_BL = codes_BTHW.flatten(1).long()
    if codes_BL.numel():
        low, high = (int(bound) for bound in codes_BL.aminmax())
        vocabulary.video_id(low)
        vocabulary.video_id(high)
    return codes_BL + vocabulary.text
