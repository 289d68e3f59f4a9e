"""Settings of the video tokenizer and its codebook."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from infra.config import Section, refuse_ignored
from models.codec import CausalFrames, CodecSpec, Codes
from models.losses.config import AdversarialConfig, PerceptualConfig

STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
"""(time, height, width) strides between the four levels: 4x in time, 8x in space."""
TIME_STRIDE = 4
SPACE_STRIDE = 8
LEVELS = len(STRIDES) + 1

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


def _every_level(value: Any) -> Any:
    if isinstance(value, int):
        return (value,) * LEVELS
    return tuple(value) if isinstance(value, list) else value


PerLevel = Annotated[tuple[Count, Count, Count, Count], BeforeValidator(_every_level)]
"""One number a level, the full-resolution level first; one number alone means every level."""


class CVQConfig(Section):
    """The clustering vector quantizer (Loong, section 3.1; Zheng and Vedaldi, CVQ-VAE)."""

    size: Annotated[int, Field(ge=2)] = 8192
    """Number of codes K."""
    dim: Size = 256
    """Channels of a code, and of the encoder's output. Open in the paper; 256 as in VQGAN."""
    beta: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the term that pulls the encoder towards its code."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Decay of the running usage of each code."""
    distance: Literal["cos", "l2"] = "cos"
    anchor: Literal["probrandom", "closest"] = "probrandom"
    """How a little-used code picks the batch feature that it moves to."""
    seed: int = 0
    """Seed of the `probrandom` draws."""
    contrastive_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of CVQ's contrastive term beside the codebook loss; 0 leaves it out. Loong does not
    say whether it is used; CVQ-VAE's public code has it with weight 1, off by default."""
    contrastive_temperature: Annotated[float, Field(gt=0)] = 0.07

    @model_validator(mode="after")
    def _check_ignored(self) -> "CVQConfig":
        if self.anchor != "probrandom":
            refuse_ignored(self, f"anchor {self.anchor}", "seed")
        if not self.contrastive_weight:
            refuse_ignored(self, "contrastive_weight 0", "contrastive_temperature")
        return self


class TokenizerConfig(Section):
    """The causal 3-D CNN tokenizer. The defaults are the paper's size; see README."""

    height_px: Annotated[int, Field(ge=SPACE_STRIDE, multiple_of=SPACE_STRIDE)] = 128
    width_px: Annotated[int, Field(ge=SPACE_STRIDE, multiple_of=SPACE_STRIDE)] = 128
    channels: Size = 128
    channel_multipliers: tuple[Size, Size, Size, Size] = (1, 2, 2, 4)
    res_blocks: PerLevel = (4, 4, 4, 4)
    """Residual blocks at each level, full resolution first."""
    middle_blocks: Count = 4
    """Further residual blocks at the latent resolution."""
    temporal_kernels: PerLevel = (3, 3, 3, 3)
    """Frames that a convolution sees at each level, 1 or 3. A level with 1 is spatial only."""
    groups: Size = 32
    """Groups of the group normalisation; divides the channels of every level."""
    adaptive_norm: bool = False
    """Normalise what each level of the decoder begins with, scaled and shifted by the codes: the
    adaptive group norm of MAGVIT-v2, which Loong reproduces."""
    codebook: CVQConfig = CVQConfig()
    l1_weight: Annotated[float, Field(ge=0)] = 1.0
    l2_weight: Annotated[float, Field(ge=0)] = 0.0
    commitment_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the whole codebook loss, which already holds `beta`."""
    perceptual: PerceptualConfig = PerceptualConfig()
    adversarial: AdversarialConfig | None = None
    """None: no discriminator."""

    @model_validator(mode="after")
    def _check(self) -> "TokenizerConfig":
        for channels in self.level_channels:
            if channels % self.groups:
                raise ValueError(
                    f"groups={self.groups} must divide the channels of every level, "
                    f"which are {self.level_channels}"
                )
        if set(self.temporal_kernels) - {1, 3}:
            raise ValueError(f"temporal_kernels={self.temporal_kernels}: each must be 1 or 3")
        if self.perceptual.weights is not None and min(self.height_px, self.width_px) < 16:
            raise ValueError(
                f"perceptual.weights with frames of {self.height_px} x {self.width_px} px: "
                "VGG16 needs at least 16 x 16"
            )
        return self

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels at each level, full resolution first."""
        return tuple(self.channels * multiplier for multiplier in self.channel_multipliers)

    @property
    def codec_spec(self) -> CodecSpec:
        """How the tokenizer groups frames and pixels; see `models.codec`."""
        return CodecSpec(
            time=CausalFrames(stride=TIME_STRIDE),
            space_stride=SPACE_STRIDE,
            latent=Codes(codebook_size=self.codebook.size),
        )

    def latent_shape(self, frames: int) -> tuple[int, int, int]:
        """Return the (T, H, W) grid of ids that a clip of `frames` frames becomes.

        Raises:
            ValueError: the tokenizer makes no clip of so many frames.
        """
        return self.codec_spec.latent_shape(frames, self.height_px, self.width_px)
