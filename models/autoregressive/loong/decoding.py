"""Decoder for one new video token a sequence: the step that generation repeats.

A step reads every weight to multiply it with a row or a few, so it costs what reading memory costs
and what calling small operations costs. `StepDecoder` keeps both low: it reads only the head's rows
that may come next, in one matrix what is multiplied with the same input, cut into blocks that a CPU
multiplies faster; and it computes what no token changes once.

Shapes: B sequence, D hidden, N query heads, G key-value heads, R = N/G, P tokens so far, E channels
of a head, V video ids, I width inside the MLP; Q blocks of a weight, U its inputs, O a block's
outputs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.autoregressive.cache import KVCache
from models.autoregressive.loong.layers import Block
from models.autoregressive.loong.model import LongtakeLlama
from models.common.rope import rotary_tables

_BLOCK_ROWS = 128
"""Least outputs of a block. On a CPU several rows times narrow blocks are fastest; see README."""


class _Product:
    """The product of B rows of input with weights (out, in) of that one input, side by side."""

    def __init__(self, *weights: Tensor) -> None:
        self._weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        blocks = 1
        while self._weight.device.type == "cpu" and len(self._weight) % (2 * blocks) == 0:
            if len(self._weight) < 2 * blocks * _BLOCK_ROWS:
                break
            blocks *= 2
        self._blocks_QUO = self._weight.unflatten(0, (blocks, -1)).transpose(1, 2)

    def __call__(self, x_BU: Tensor) -> Tensor:
        """Return (B, out)."""
        blocks = len(self._blocks_QUO)
        if len(x_BU) == 1 or blocks == 1:  # one row gains nothing
            return F.linear(x_BU, self._weight)
        y_QBO = x_BU.expand(blocks, -1, -1).bmm(self._blocks_QUO)
        return y_QBO.transpose(0, 1).flatten(1)


class _Norm:
    """RMS norm; on a CPU in fewer calls than torch's own, whose parts it calls one by one."""

    def __init__(self, weight_D: Tensor, eps: float) -> None:
        self._weight_D, self._eps = weight_D, eps
        self._is_fewer = weight_D.device.type == "cpu" and weight_D.dtype == torch.float32
        # x / sqrt(|x|² / D + eps) = x sqrt(D) / hypot(|x|, sqrt(D eps))
        self._scaled_D = weight_D * len(weight_D) ** 0.5
        self._floor = weight_D.new_tensor((len(weight_D) * eps) ** 0.5)

    def __call__(self, x_BD: Tensor) -> Tensor:
        if not self._is_fewer:
            return F.rms_norm(x_BD, self._weight_D.shape, self._weight_D, self._eps)
        length_B1 = torch.linalg.vector_norm(x_BD, dim=1, keepdim=True)
        return x_BD / torch.hypot(length_B1, self._floor) * self._scaled_D


class _Layer(NamedTuple):
    attention_norm: _Norm
    query_key_value: _Product
    output: _Product
    mlp_norm: _Norm
    gate_up: _Product
    down: _Product


class StepDecoder:
    """`LongtakeLlama` for generation: the same function as `hidden` and `logits`, one token on.

    It holds a copy of what it puts side by side, the projections to queries, keys and values and
    the MLP's two to its inside, as they were when it was made.

    Args:
        model: The decoder.
        positions: Longest sequence that a cache will hold.
    """

    def __init__(self, model: LongtakeLlama, positions: int) -> None:
        config = self.config = model.config
        decoder = model.model
        ids = config.vocabulary.video_ids
        self._embedding_VD = decoder.embed_tokens.weight[ids]
        self._layers = [_layer(block, config.norm_eps) for block in decoder.layers]  # pyright: ignore[reportArgumentType]
        self._norm = _Norm(decoder.norm.weight, config.norm_eps)
        self._head = _Product(model.lm_head.weight[ids])
        weight = decoder.norm.weight
        places = torch.arange(positions, device=weight.device)
        cos, sin = rotary_tables(places, config.head_dim, config.rope_theta)
        self._cos_PE = torch.cat((cos, cos), dim=1).to(weight.dtype)
        self._sin_PE = torch.cat((-sin, sin), dim=1).to(weight.dtype)

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
            normed_BD = layer.attention_norm(x_BD)
            mixed = layer.query_key_value(normed_BD).unflatten(1, (-1, config.head_dim))
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
            x_BD = x_BD + layer.output(seen_BGRE.flatten(1))
            normed_BD = layer.mlp_norm(x_BD)
            gate_BI, up_BI = layer.gate_up(normed_BD).chunk(2, dim=1)
            x_BD = x_BD + layer.down(F.silu(gate_BI) * up_BI)
        cache.advance(1)
        return self._head(self._norm(x_BD))


def _layer(block: Block, eps: float) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        _Norm(block.input_layernorm.weight, eps),
        _Product(*(projection.weight for projection in projections)),
        _Product(attention.o_proj.weight),
        _Norm(block.post_attention_layernorm.weight, eps),
        _Product(mlp.gate_proj.weight, mlp.up_proj.weight),
        _Product(mlp.down_proj.weight),
    )
