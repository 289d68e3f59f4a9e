"""The parts of a LLaMA block: rotary positions, grouped-query attention, SwiGLU.

Parameter names are those of transformers' LlamaForCausalLM, so weights go both ways unchanged.

Shapes: B batch, S new tokens, P tokens so far (past and new), D hidden, N query heads,
G key-value heads, E channels of a head.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.autoregressive.cache import KVCache
from models.autoregressive.config import ARConfig
from models.autoregressive.ulysses import Ulysses


def rotary_tables(positions_S: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, in float32.

    Args:
        positions_S: Places in the sequence.
        head_dim: Channels of a head, E.
        theta: Base of the wavelengths.

    Returns:
        Two tensors (S, E/2).
    """
    exponents = torch.arange(0, head_dim, 2, device=positions_S.device, dtype=torch.float32)
    angles = positions_S[:, None].float() * theta ** (-exponents / head_dim)
    return angles.cos(), angles.sin()


def rotate(x_BNSE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair (i, i + E/2) by its angle: the half-split form of RoPE."""
    first, second = x_BNSE.chunk(2, dim=-1)
    cos, sin = cos.to(x_BNSE.dtype), sin.to(x_BNSE.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


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


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key-value heads."""

    def __init__(self, config: ARConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        key_value = config.key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, config.hidden, bias=False)
        self.k_proj = nn.Linear(config.hidden, key_value, bias=False)
        self.v_proj = nn.Linear(config.hidden, key_value, bias=False)
        self.o_proj = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(
        self,
        x_BSD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        ulysses: Ulysses | None,
    ) -> Tensor:
        """Attend from the new tokens to themselves and to what the cache holds.

        With `ulysses` the new tokens are a stretch, and attend to the whole sequence.
        """
        queries, keys, values = (
            rearrange(project(x_BSD), "B S (N E) -> B N S E", E=self.head_dim)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(queries, *rotary), rotate(keys, *rotary)
        if cache is not None:
            keys, values = cache.append(self.layer, keys, values)
        if ulysses is not None:
            queries, keys, values = ulysses.to_heads(queries, keys, values)
        mixed_BNSE = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and queries.shape[2] > 1,
            enable_gqa=keys.shape[1] != queries.shape[1],
        )
        if ulysses is not None:
            mixed_BNSE = ulysses.to_stretches(mixed_BNSE)
        return self.o_proj(rearrange(mixed_BNSE, "B N S E -> B S (N E)"))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Map each token on its own."""
        return self.down_proj(F.silu(self.gate_proj(x_BSD)) * self.up_proj(x_BSD))


class Block(nn.Module):
    """Pre-norm attention, then pre-norm MLP, each added to the residual stream."""

    def __init__(self, config: ARConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden, eps=config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden, eps=config.norm_eps)

    def forward(
        self,
        x_BSD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        ulysses: Ulysses | None,
    ) -> Tensor:
        """Add attention of the normalised input, then the MLP of the normalised sum."""
        x_BSD = x_BSD + self.self_attn(self.input_layernorm(x_BSD), rotary, mask, cache, ulysses)
        return x_BSD + self.mlp(self.post_attention_layernorm(x_BSD))
