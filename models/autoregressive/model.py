"""A LLaMA decoder over one sequence of text and video tokens (Loong, sec. 3.1 and 4.1).

Shapes: B batch, S tokens, D hidden, V ids asked for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.autoregressive.cache import KVCache
from models.autoregressive.config import ARConfig
from models.autoregressive.layers import Block, attention_mask, rotary_tables


class Decoder(nn.Module):
    """Embedding, blocks and final norm: the `model.` part of the parameter names."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary.total, config.hidden)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden, eps=config.norm_eps)


class LongtakeLlama(nn.Module):
    """LLaMA with the parameter names of transformers' LlamaForCausalLM.

    `hidden` and `logits` are apart so that a caller pays only for the output rows it needs:
    video tokens are never followed by text, hence training and generation ask for the video ids
    only (see the README).

    Args:
        config: Shape of the model.

    Attributes:
        recompute_activations: When true, training keeps only the input of each block and runs
            the block again in the backward pass: less memory, a third more time.
    """

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_activations = False
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden, config.vocabulary.total, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)

    def hidden(
        self,
        ids_BS: Tensor,
        *,
        cache: KVCache | None = None,
        padding_B: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states, after the last norm.

        Args:
            ids_BS: Token ids; with a cache, only the tokens that it has not seen.
            cache: Keys and values of the tokens before; it takes in the new ones.
            padding_B: Left padding of each row in tokens, for a call without a cache (a cache
                brings its own). Padded tokens are not attended to; that they shift the positions of
                a row changes nothing, since rotary attention sees only differences.

        Returns:
            (B, S, D). Rows of padding tokens hold no meaning.

        Raises:
            ValueError: If the sequence is longer than `config.max_positions`.
        """
        past = 0 if cache is None else cache.length
        new = ids_BS.shape[1]
        if past + new > self.config.max_positions:
            raise ValueError(
                f"sequence of {past + new} tokens is longer than max_positions "
                f"{self.config.max_positions}"
            )
        padding_B = padding_B if cache is None else cache.padding_B
        positions = torch.arange(past, past + new, device=ids_BS.device)
        rotary = rotary_tables(positions, self.config.head_dim, self.config.rope_theta)
        mask = attention_mask(new, past, padding_B, ids_BS.device)

        x_BSD = self.model.embed_tokens(ids_BS)
        for block in self.model.layers:
            if self.recompute_activations and self.training and cache is None:
                x_BSD = checkpoint(block, x_BSD, rotary, mask, None, use_reentrant=False)
            else:
                x_BSD = block(x_BSD, rotary, mask, cache)
        if cache is not None:
            cache.advance(new)
        return self.model.norm(x_BSD)

    def logits(self, hidden: Tensor, ids: slice | None = None) -> Tensor:
        """Scores of the ids in a slice of the vocabulary.

        Args:
            hidden: (..., D) from `hidden`.
            ids: Which ids; None means all.

        Returns:
            (..., V).
        """
        weight = self.lm_head.weight
        return F.linear(hidden, weight if ids is None else weight[ids])

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Logits of every id at every position, (B, S, vocabulary)."""
        return self.logits(self.hidden(ids_BS))
