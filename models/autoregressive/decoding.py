"""The decoder at one new video token a sequence: the steps that generation consists of.

A step reads every weight to multiply it with a row or a few, so it costs what reading memory costs
and what calling small operations costs. `StepDecoder` keeps both low: it reads only the head's rows
that may come next, in one matrix each what is multiplied with the same input, stored so that the
few rows of a batch meet contiguous memory; and it computes what no token changes once.

Shapes: B sequence, D hidden, N query heads, G key-value heads, R = N/G, P tokens so far, E channels
of a head, V video ids, I width inside the MLP.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.autoregressive.cache import KVCache
from models.autoregressive.layers import Block, rotary_tables
from models.autoregressive.model import LongtakeLlama


class _Layer(NamedTuple):
    """A block's weights, transposed: inputs are rows."""

    attention_norm_D: Tensor
    query_key_value: Tensor  # (D, (N + 2G) * E)
    output_DD: Tensor
    mlp_norm_D: Tensor
    gate_up: Tensor  # (D, 2I)
    down_ID: Tensor


class StepDecoder:
    """`LongtakeLlama` for generation: the same function as `hidden` and `logits`, one token on.

    It holds a copy of the blocks' weights and of the video ids' rows of the head, as they were when
    it was made.

    Args:
        model: The decoder.
        positions: Longest sequence that a cache will hold.
    """

    def __init__(self, model: LongtakeLlama, positions: int) -> None:
        config = self.config = model.config
        decoder = model.model
        ids = config.vocabulary.video_ids
        self._embedding_VD = decoder.embed_tokens.weight[ids]
        self._layers = [_layer(block) for block in decoder.layers]  # pyright: ignore[reportArgumentType]
        self._norm_D = decoder.norm.weight
        self._head_DV = _rows(model.lm_head.weight[ids])
        places = torch.arange(positions, device=self._norm_D.device)
        cos, sin = rotary_tables(places, config.head_dim, config.rope_theta)
        self._cos_PE = torch.cat((cos, cos), dim=1).to(self._norm_D.dtype)
        self._sin_PE = torch.cat((-sin, sin), dim=1).to(self._norm_D.dtype)

    def __call__(self, codes_B: Tensor, cache: KVCache) -> Tensor:
        """Read one video code a sequence and score what may follow.

        Args:
            codes_B: Codes in [0, vocabulary.video).
            cache: All tokens before these; it takes them in.

        Returns:
            (B, V) scores of the video ids.
        """
        config = self.config
        heads, groups = config.heads, config.key_value_heads
        cos_E, sin_E = self._cos_PE[cache.length], self._sin_PE[cache.length]
        mask_B11P = cache.padding_mask()
        x_BD = F.embedding(codes_B, self._embedding_VD)
        for number, layer in enumerate(self._layers):
            normed_BD = self._normalise(x_BD, layer.attention_norm_D)
            mixed = (normed_BD @ layer.query_key_value).unflatten(1, (-1, config.head_dim))
            turned, values_BGE = mixed.split((heads + groups, groups), dim=1)
            # (a, b) turns to (a cos - b sin, b cos + a sin), a and b the halves of E
            swapped = turned.roll(config.head_dim // 2, dims=-1)
            turned = torch.addcmul(turned * cos_E, swapped, sin_E)
            queries_BNE, keys_BGE = turned.split((heads, groups), dim=1)
            keys_BGPE, values_BGPE = cache.append(
                number, keys_BGE.unsqueeze(2), values_BGE.unsqueeze(2)
            )
            # The R queries of a group are at the same place: no mask among them.
            seen_BGRE = F.scaled_dot_product_attention(
                queries_BNE.unflatten(1, (groups, -1)), keys_BGPE, values_BGPE, attn_mask=mask_B11P
            )
            x_BD = torch.addmm(x_BD, seen_BGRE.flatten(1), layer.output_DD)
            normed_BD = self._normalise(x_BD, layer.mlp_norm_D)
            gate_BI, up_BI = (normed_BD @ layer.gate_up).chunk(2, dim=1)
            x_BD = torch.addmm(x_BD, F.silu(gate_BI) * up_BI, layer.down_ID)
        cache.advance(1)
        return self._normalise(x_BD, self._norm_D) @ self._head_DV

    def _normalise(self, x_BD: Tensor, weight_D: Tensor) -> Tensor:
        return F.rms_norm(x_BD, weight_D.shape, weight_D, self.config.norm_eps)


def _layer(block: Block) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        block.input_layernorm.weight,
        _rows(*(projection.weight for projection in projections)),
        _rows(attention.o_proj.weight),
        block.post_attention_layernorm.weight,
        _rows(mlp.gate_proj.weight, mlp.up_proj.weight),
        _rows(mlp.down_proj.weight),
    )


def _rows(*weights: Tensor) -> Tensor:
    """Weights (out, in) of one input, side by side as one matrix (in, out) in memory."""
    return torch.cat(weights).t().contiguous()
