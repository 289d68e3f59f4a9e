"""The video tokenizer: frames to ids and back (Loong, section 3.1, after MAGVIT-v2).

Shape legend: B clip, C channel (3 at the pixel end), T frame or latent frame, H row, W column.
A clip of 1 + 4k frames of 8h x 8w pixels is (1 + k) x h x w ids; an image is a clip of 1 frame.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.codec import CodecSpec
from models.tokenizer.config import TIME_STRIDE, TokenizerConfig
from models.tokenizer.cvq import ClusteringVQ
from models.tokenizer.decoder import Decoder
from models.tokenizer.encoder import Encoder
from models.tokenizer.layers import Stream
from models.tokenizer.losses import reconstruction_losses, total_loss

RANGE_TOLERANCE = 1e-3


class TokenizerOutput(NamedTuple):
    """What one training forward gives."""

    reconstruction: Tensor
    """BCTHW like the input; not clamped, so that gradients live outside [-1, 1]."""
    ids_BTHW: Tensor
    losses: dict[str, Tensor]
    """"l1", "l2" and "commitment" (the codebook loss, beta included), unweighted scalars; more in
    `TrainingTokenizer`."""
    loss: Tensor
    """Their weighted sum."""
    perplexity: Tensor
    """Effective number of codes in the batch."""
    logits: dict[str, Tensor]
    """Means of a discriminator's logits by name; empty without one."""


class VideoTokenizer(nn.Module):
    """Causal 3-D CNN encoder, clustering VQ, and mirror-image decoder."""

    def __init__(self, config: TokenizerConfig) -> None:
        """Build the tokenizer with random weights."""
        super().__init__()
        self.config = config
        self.spec = config.codec_spec
        self.encoder = Encoder(config)
        self.quantizer = ClusteringVQ(config.codebook)
        self.decoder = Decoder(config)

    @property
    def codebook_size(self) -> int:
        """Number of ids; every id is in [0, codebook_size)."""
        return self.config.codebook.size

    def forward(self, x_BCTHW: Tensor) -> TokenizerOutput:
        """Encode, quantize and decode; in train mode the codebook is updated.

        Args:
            x_BCTHW: RGB in [-1, 1], 1 + 4k frames, height and width multiples of 8.

        Raises:
            ValueError: the input is not of that shape, type or range.
        """
        _check_pixels(x_BCTHW, self.spec)
        code = self.quantizer(self.encoder(_channels_last(x_BCTHW)))
        y_BCTHW = self.decoder(code.quantized_BCTHW)
        losses = reconstruction_losses(x_BCTHW, y_BCTHW) | {"commitment": code.loss}
        return TokenizerOutput(
            reconstruction=y_BCTHW,
            ids_BTHW=code.ids_BTHW,
            losses=losses,
            loss=total_loss(losses, self.config),
            perplexity=code.perplexity,
            logits={},
        )

    @torch.no_grad()
    def encode(self, x_BCTHW: Tensor) -> Tensor:
        """Return ids (B, 1+k, H/8, W/8), long, of frames (B, 3, 1+4k, H, W) in [-1, 1].

        Latent frame k depends on frames 0 .. 4k only. Never changes the codebook.

        Raises:
            ValueError: the input is not of that shape, type or range.
        """
        _check_pixels(x_BCTHW, self.spec)
        return self.quantizer.nearest(self.encoder(_channels_last(x_BCTHW)))

    @torch.no_grad()
    def decode(self, ids_BTHW: Tensor) -> Tensor:
        """Return frames (B, 3, 1+4k, 8H, 8W) in [-1, 1] of ids (B, 1+k, H, W).

        Frame t depends on latent frames 0 .. ceil(t / 4) only.

        Raises:
            ValueError: the ids are not integers in [0, codebook_size), not 4-dimensional, or none.
        """
        return self.decoder(_channels_last(self.lookup(ids_BTHW))).clamp(-1, 1)

    @torch.no_grad()
    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode a clip chunk by chunk, in memory that does not grow with its length.

        Args:
            chunks: consecutive frames (B, 3, T, H, W) in [-1, 1]: 1 + 4k frames in the first chunk,
                4k in each later one, k at least 1.

        Yields:
            The ids (B, t, H/8, W/8) of each chunk. Joined along time they are those of `encode` of
            the joined chunks.

        Raises:
            ValueError: a chunk has another number of frames, shape, type or range.
        """
        stream, first = Stream(), None
        for x_BCTHW in chunks:
            _check_pixels(x_BCTHW, self.spec, stream.first)
            first = _same_shape(x_BCTHW, first)
            yield self.quantizer.nearest(self.encoder(_channels_last(x_BCTHW), stream))
            stream.first = False

    @torch.no_grad()
    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decode a clip chunk by chunk, in memory that does not grow with its length.

        Args:
            chunks: consecutive ids (B, T, H, W), each chunk of any T from 1 up.

        Yields:
            The frames of each chunk in [-1, 1]: 1 + 4 (T - 1) of the first, 4 T of each later one.
            Joined along time they are those of `decode` of the joined chunks.

        Raises:
            ValueError: as `decode`, or a chunk has another shape than the first.
        """
        stream, first = Stream(), None
        for ids_BTHW in chunks:
            code_BCTHW = _channels_last(self.lookup(ids_BTHW))
            first = _same_shape(code_BCTHW, first)
            yield self.decoder(code_BCTHW, stream).clamp(-1, 1)
            stream.first = False

    def lookup(self, ids_BTHW: Tensor) -> Tensor:
        """Return the codes (B, dim, T, H, W) of ids; raises ValueError like `decode`."""
        numbers = ids_BTHW.is_floating_point() or ids_BTHW.is_complex()
        if ids_BTHW.ndim != 4 or not ids_BTHW.numel() or numbers:
            raise ValueError(
                f"ids of shape {tuple(ids_BTHW.shape)} and type {ids_BTHW.dtype}: "
                "expected integers (B, T, H, W), each of them at least 1"
            )
        low, high = (int(bound) for bound in ids_BTHW.aminmax())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"ids from {low} to {high}: allowed are 0 to {self.codebook_size - 1}")
        return self.quantizer.lookup(ids_BTHW.long())


def parameter_count(config: TokenizerConfig) -> int:
    """Return the number of trained parameters, without allocating them."""
    with torch.device("meta"):
        model = VideoTokenizer(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _channels_last(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW.contiguous(memory_format=torch.channels_last_3d)


def _same_shape(x_BCTHW: Tensor, first: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape without time, which is that of the first chunk."""
    batch, _, _, height, width = x_BCTHW.shape
    if first is not None and (batch, height, width) != first:
        raise ValueError(
            f"chunk of (B, H, W) {(batch, height, width)}: expected {first} as in the first chunk"
        )
    return batch, height, width


def _check_pixels(x_BCTHW: Tensor, spec: CodecSpec, first: bool = True) -> None:
    shape = tuple(x_BCTHW.shape)
    if x_BCTHW.ndim != 5 or shape[1] != 3 or shape[0] < 1:
        raise ValueError(f"frames of shape {shape}: expected (B, 3, T, H, W)")
    if first:
        spec.check_frames(shape[2])
    elif shape[2] < 1 or shape[2] % TIME_STRIDE:
        raise ValueError(f"chunk of {shape[2]} frames: expected 4k (4, 8, ...) after the first")
    spec.check_size(*shape[3:])
    if not x_BCTHW.is_floating_point():
        raise ValueError(f"frames of type {x_BCTHW.dtype}: expected floats in [-1, 1]")
    low, high = (float(bound) for bound in x_BCTHW.detach().aminmax())
    limit = 1 + RANGE_TOLERANCE
    if not (-limit <= low and high <= limit):  # also refuses NaN
        raise ValueError(
            f"frames range from {low:g} to {high:g}: expected [-1, 1] (for uint8: x / 127.5 - 1)"
        )
