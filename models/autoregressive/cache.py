"""Key-value cache of a decoder, in memory that is allocated once.

Shapes: B batch, G key-value heads, P positions allocated, S new tokens, E channels of a head.
"""

from typing import Protocol

import torch
from torch import Tensor


class DecoderShape(Protocol):
    """The sizes of a decoder that its cache needs."""

    @property
    def layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values in a block."""
        ...

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        ...


class KVCache:
    """One (B, G, P, E) buffer for keys and one for values per layer.

    A forward pass appends its S new positions layer by layer with `append`, and moves on with
    `advance` when all layers have been through.

    Args:
        config: Shape of the model.
        batch: Number of sequences.
        positions: Longest sequence the cache can hold.
        padding_B: Left padding of each sequence in tokens; None means none anywhere.
        device: Where the buffers live.
        dtype: Type of keys and values.
    """

    def __init__(
        self,
        config: DecoderShape,
        batch: int,
        positions: int,
        *,
        padding_B: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch, config.key_value_heads, positions, config.head_dim)
        self.batch = batch
        self.positions = positions
        self.padding_B = padding_B
        self.length = 0
        self._hidden_B11P = None
        if padding_B is not None:
            pads_BP = torch.arange(positions, device=device) < padding_B[:, None]
            mask_BP = torch.zeros(batch, positions, device=device, dtype=dtype)
            self._hidden_B11P = mask_BP.masked_fill_(pads_BP, -torch.inf)[:, None, None]
        self._keys = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self._values = [torch.empty_like(keys) for keys in self._keys]

    def append(self, layer: int, keys_BGSE: Tensor, values_BGSE: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values.

        Returns:
            All keys and all values of the layer up to the new ones, as views (B, G, length+S, E).

        Raises:
            ValueError: If the new tokens do not fit.
        """
        end = self.length + keys_BGSE.shape[2]
        if end > self.positions:
            raise ValueError(f"the cache holds {self.positions} positions, {end} were asked for")
        keys, values = self._keys[layer], self._values[layer]
        keys.narrow(2, self.length, keys_BGSE.shape[2]).copy_(keys_BGSE)
        values.narrow(2, self.length, keys_BGSE.shape[2]).copy_(values_BGSE)
        return keys.narrow(2, 0, end), values.narrow(2, 0, end)

    def padding_mask(self) -> Tensor | None:
        """Where one new token a sequence may not look.

        Returns:
            (B, 1, 1, length+1) to be added to the scores, 0 or -inf; None means no padding.
        """
        if self._hidden_B11P is None:
            return None
        return self._hidden_B11P.narrow(3, 0, self.length + 1)

    def advance(self, tokens: int) -> None:
        """Count the tokens that every layer has appended."""
        self.length += tokens
