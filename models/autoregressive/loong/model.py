"""A LLaMA decoder over one sequence of text and video tokens (Loong, sec. 3.1 and 4.1).

Shapes: B batch, S tokens, D hidden, V ids asked for, P tokens of a rank's stretch.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.autoregressive.cache import KVCache
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.layers import Block
from models.common.attention import attention_mask
from models.common.rope import rotary_tables
from models.common.ulysses import Ulysses


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
        ulysses: This rank's part in sharing sequences out, from `share_sequences`; None: it reads
            whole ones.
    """

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute_activations = False
        self.ulysses: Ulysses | None = None
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden, config.vocabulary.total, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)

    def compile_blocks(self) -> None:
        """Compile the blocks (`torch.compile`) in place, so that parameter names stay."""
        for block in self.model.layers:
            block.compile()

    def share_sequences(self, group: dist.ProcessGroup) -> None:
        """Compute only a stretch of every sequence from now on, as one rank of `group`.

        Raises:
            ValueError: If the query heads do not divide over the ranks.
        """
        if self.config.heads % group.size():
            raise ValueError(f"heads {self.config.heads} do not divide over {group.size()} ranks")
        self.ulysses = Ulysses(group)

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
            (B, S, D). Rows of padding tokens hold no meaning. With `ulysses`, this rank's stretch
            of the whole sequences that all ranks gave, (B, P, D).

        Raises:
            ValueError: If the sequence is longer than `config.max_positions`, or if it is to be
                shared out and there is a cache or left padding.
        """
        past = 0 if cache is None else cache.length
        new = ids_BS.shape[1]
        if past + new > self.config.max_positions:
            raise ValueError(
                f"sequence of {past + new} tokens is longer than max_positions "
                f"{self.config.max_positions}"
            )
        padding_B = padding_B if cache is None else cache.padding_B
        mask = attention_mask(new, past, padding_B, ids_BS.device)
        first, ulysses = past, self.ulysses
        if ulysses is not None:
            if cache is not None or padding_B is not None:
                raise ValueError("sequences with a cache or left padding are not shared out")
            # Causal attention keeps what is filled in at the end from every real token.
            ids_BS = ulysses.stretch(ids_BS, self.config.vocabulary.pad)
            first = ulysses.rank * ids_BS.shape[1]
        positions = torch.arange(first, first + ids_BS.shape[1], device=ids_BS.device)
        rotary = rotary_tables(positions, self.config.head_dim, self.config.rope_theta)

        x_BSD = self.model.embed_tokens(ids_BS)
        for block in self.model.layers:
            if self.recompute_activations and self.training and cache is None:
                x_BSD = checkpoint(block, x_BSD, rotary, mask, None, ulysses, use_reentrant=False)
            else:
                x_BSD = block(x_BSD, rotary, mask, cache, ulysses)
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
        """Logits of every id at every position of what `hidden` returns, (B, S, vocabulary)."""
        return self.logits(self.hidden(ids_BS))
