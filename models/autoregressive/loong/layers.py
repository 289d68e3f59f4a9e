"""Layers of a LLaMA block: grouped-query attention with rotary positions, SwiGLU.

Parameter names are those of transformers' LlamaForCausalLM, so weights go both ways unchanged.

Shapes: B batch, S new tokens, P tokens so far (past and new), D hidden, N query heads,
G key-value heads, E channels of a head.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.autoregressive.cache import KVCache
from models.autoregressive.loong.config import ARConfig
from models.common.rope import rotate
from models.common.ulysses import Ulysses


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
