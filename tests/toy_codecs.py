"""Codecs of every time rule that need no training: a latent is the mean of its pixels."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from models.codec import CausalFrames, Channels, ChunkedFrames, CodecSpec, Codes

PATCH = 8
CODES = 300
RULES = {
    "17 to 5": ChunkedFrames(chunk_frames=17, chunk_latents=5),
    "16 to 5": ChunkedFrames(chunk_frames=16, chunk_latents=5),
    "causal 4": CausalFrames(stride=4),
}


class WholeClips:
    """What a codec lacks that knows whole clips alone."""

    def decode(self, latents: Tensor, /) -> Tensor:
        raise NotImplementedError("this codec of a test only encodes")

    def encode_stream(self, chunks: Iterable[Tensor], /) -> Iterator[Tensor]:
        raise NotImplementedError("this codec of a test takes whole clips")

    def decode_stream(self, chunks: Iterable[Tensor], /) -> Iterator[Tensor]:
        raise NotImplementedError("this codec of a test takes whole clips")


class ToyCodec(WholeClips):
    """Codes or channels of a time rule."""

    def __init__(self, rule: str, is_coded: bool = True) -> None:
        latent = Codes(codebook_size=CODES) if is_coded else Channels(channels=3)
        self.spec = CodecSpec(time=RULES[rule], space_stride=PATCH, latent=latent)

    def encode(self, x_BCFHW: Tensor) -> Tensor:
        rule, x = self.spec.time, x_BCFHW
        if isinstance(rule, CausalFrames):
            later = x[:, :, 1:].unflatten(2, (-1, rule.stride)).mean(3)
            x = torch.cat([x[:, :, :1], later], 2)
        else:
            chunks = x.unflatten(2, (-1, rule.chunk_frames))
            at = torch.linspace(0, rule.chunk_frames - 1, rule.chunk_latents).round().long()
            x = chunks[:, :, :, at].flatten(2, 3)
        x = x.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH)).mean((-1, -3))
        if isinstance(self.spec.latent, Channels):
            return x
        return ((x.mean(1) + 1) / 2 * (CODES - 1)).round().long()
