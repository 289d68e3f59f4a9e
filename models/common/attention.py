"""Masks of causal attention over new and cached tokens with left padding."""

import torch
from torch import Tensor


def attention_mask(new: int, past: int, padding_B: Tensor | None, device: torch.device):
    """Who may look at whom: everything before, nothing after, no padding.

    Args:
        new: Number of new tokens, S.
        past: Number of tokens in the cache, P - S.
        padding_B: Left padding of each row in tokens; None means none.
        device: Where the mask is built.

    Returns:
        A boolean mask (S, P) or (B, 1, S, P), True where attention is allowed; or None when
        either plain causal attention (past == 0) or no mask at all (new == 1) says the same.
    """
    if padding_B is None and (past == 0 or new == 1):
        return None
    keys_P = torch.arange(past + new, device=device)
    queries_S1 = torch.arange(past, past + new, device=device)[:, None]
    causal_SP = keys_P <= queries_S1
    if padding_B is None:
        return causal_SP
    real_B1P = (keys_P >= padding_B[:, None])[:, None]
    # A padding token sees itself, so that no row of the softmax is empty.
    return ((causal_SP & real_B1P) | (keys_P == queries_S1))[:, None]
