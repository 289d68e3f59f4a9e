"""Interface of video codecs: tokenizers, VAEs and latent VQs turn frames into latents and back.

A `CodecSpec` says, as plain data, how frames group in time and pixels in space, and what a latent
holds. Preparation, training and generation ask it for shapes and never know which codec they serve:

    causal, stride 4     frames 0 | 1 2 3 4 | 5 6 7 8 | …      1 + 4k frames <-> 1 + k latents
    chunks of 17 -> 5    frames 0 … 16 | 17 … 33 | …           17k frames    <-> 5k latents

Shapes: B clip, C colour or channel, F frame, T H W latent frame, row and column.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Protocol

from pydantic import Field
from torch import Tensor

from infra.config import Section

Count = Annotated[int, Field(ge=1)]


class CausalFrames(Section):
    """The first frame is one latent frame, and every `stride` frames after it are one more."""

    kind: Literal["causal"] = "causal"
    stride: Count = 4

    def latents(self, frames: int) -> int:
        """Return the latent frames that `frames` frames touch, the last one perhaps in part."""
        return 1 + -(-max(frames - 1, 0) // self.stride)

    def frames(self, latents: int) -> int:
        """Return the frames that `latents` latent frames, at least 1, decode to."""
        return 1 + self.stride * (latents - 1)

    def nearest(self, frames: int) -> tuple[int, int]:
        """Return the longest clip of at most `frames` frames and the next longer one."""
        low = 1 + max(frames - 1, 0) // self.stride * self.stride
        return low, low + self.stride


class ChunkedFrames(Section):
    """Chunks of `chunk_frames` frames become `chunk_latents` latent frames, each by itself."""

    kind: Literal["chunks"] = "chunks"
    chunk_frames: Count
    chunk_latents: Count

    def latents(self, frames: int) -> int:
        """Return the latent frames of the chunks that `frames` frames touch."""
        return -(-frames // self.chunk_frames) * self.chunk_latents

    def frames(self, latents: int) -> int:
        """Return the frames that `latents` latent frames, whole chunks of them, decode to."""
        if latents % self.chunk_latents:
            raise ValueError(
                f"{latents} latent frames: the codec decodes chunks of {self.chunk_latents}"
            )
        return latents // self.chunk_latents * self.chunk_frames

    def nearest(self, frames: int) -> tuple[int, int]:
        """Return the longest clip of at most `frames` frames (one chunk at least) and the next."""
        low = max(frames // self.chunk_frames, 1) * self.chunk_frames
        return low, low + self.chunk_frames


class Codes(Section):
    """A latent is one of `codebook_size` codes: integers from 0."""

    kind: Literal["codes"] = "codes"
    codebook_size: Annotated[int, Field(ge=2)]

    @property
    def dtype(self) -> Literal["uint8", "uint16", "int32"]:
        """The smallest type that shards keep the codes in."""
        if self.codebook_size <= 1 << 8:
            return "uint8"
        return "uint16" if self.codebook_size <= 1 << 16 else "int32"


class Channels(Section):
    """A latent is a vector of `channels` real numbers."""

    kind: Literal["channels"] = "channels"
    channels: Count
    dtype: Literal["float16", "float32"] = "float16"
    """The type that shards keep them in."""


class CodecSpec(Section):
    """How a codec groups frames and pixels, and what its latents are."""

    time: Annotated[CausalFrames | ChunkedFrames, Field(discriminator="kind")]
    space_stride: Count
    """Pixels in height and in width of one latent."""
    latent: Annotated[Codes | Channels, Field(discriminator="kind")]

    @property
    def is_causal(self) -> bool:
        """Whether the latents of a clip's first frames are those of these frames alone."""
        return isinstance(self.time, CausalFrames)

    def fits(self, frames: int) -> bool:
        """Return whether there is a clip of so many frames."""
        return self.time.nearest(frames)[0] == frames

    def check_frames(self, frames: int) -> None:
        """Raise ValueError, naming the nearest counts that fit, if no clip has so many frames."""
        low, high = self.time.nearest(frames)
        if not self.fits(frames):
            fit = f"{low} and {high}" if frames > low else str(low)
            raise ValueError(f"{frames} frames do not fit the codec; the nearest that do: {fit}")

    def check_size(self, height_px: int, width_px: int) -> None:
        """Raise ValueError if frames of this size do not divide into latents."""
        if min(height_px, width_px) < 1 or height_px % self.space_stride + (
            width_px % self.space_stride
        ):
            raise ValueError(
                f"frames of {height_px} x {width_px} px do not fit the codec; "
                f"allowed are multiples of {self.space_stride}"
            )

    def latents_of_frames(self, frames: int) -> int:
        """Return the latent frames of a clip.

        Raises:
            ValueError: the codec makes no clip of so many frames.
        """
        self.check_frames(frames)
        return self.time.latents(frames)

    def frames_of_latents(self, latents: int) -> int:
        """Return the frames that latent frames decode to.

        Raises:
            ValueError: there is none, or part of a chunk.
        """
        if latents < 1:
            raise ValueError(f"{latents} latent frames; at least 1 is needed")
        return self.time.frames(latents)

    def latent_shape(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int]:
        """Return (T, H, W) of a clip's latents.

        Raises:
            ValueError: the codec makes no such clip.
        """
        self.check_size(height_px, width_px)
        rows, columns = height_px // self.space_stride, width_px // self.space_stride
        return self.latents_of_frames(frames), rows, columns


class VideoCodec(Protocol):
    """A trained codec. Pixels are (B, 3, F, height, width) in [-1, 1].

    Latents are (B, T, H, W) integers where ``spec.latent`` is `Codes`, and (B, C, T, H, W) floats
    where it is `Channels`.
    """

    @property
    def spec(self) -> CodecSpec:
        """How it groups frames and pixels."""
        ...

    def encode(self, x_BCFHW: Tensor, /) -> Tensor:
        """Return the latents of clips whose frame count and size fit ``spec``."""
        ...

    def decode(self, latents: Tensor, /) -> Tensor:
        """Return the pixels of latents, in [-1, 1]."""
        ...

    def encode_stream(self, chunks: Iterable[Tensor], /) -> Iterator[Tensor]:
        """Yield the latents of consecutive pieces of one clip; joined, they are those of `encode`.

        The first piece has a count that fits ``spec``; later ones add what makes the whole fit.
        """
        ...

    def decode_stream(self, chunks: Iterable[Tensor], /) -> Iterator[Tensor]:
        """Yield the frames of consecutive latents; joined, they are those of `decode`."""
        ...
