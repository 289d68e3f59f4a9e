"""Settings of LPIPS and of the discriminator that codecs train against."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from infra.config import Section, refuse_ignored
from models.hub import WeightsUri

GROUPS = 8
"""Groups of the discriminator's normalisation."""

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


class PerceptualConfig(Section):
    """LPIPS of each frame (Zhang et al. 2018, version 0.1, VGG16). Open in Loong."""

    weights: WeightsUri | None = None
    """A safetensors file with VGG16 (`models.losses.lpips` says how to make it): a path, an ``s3://``
    URI, or a hub id with the file's name below. None leaves the term out."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """As in Open-MAGVIT2."""

    @model_validator(mode="after")
    def _check_ignored(self) -> Self:
        if self.weights is None:
            refuse_ignored(self, "weights null", "weight")
        return self


class AdversarialConfig(Section):
    """A 3-D PatchGAN discriminator. Open in Loong; the defaults are Open-MAGVIT2's where public."""

    weight: Annotated[float, Field(ge=0)] = 0.3
    """Of the tokenizer's term; the discriminator's own loss has weight 1 in its own gradient."""
    objective: Literal["hinge", "non_saturating"] = "hinge"
    lecam_weight: Annotated[float, Field(ge=0)] = 0.05
    """Of the LeCam regularisation in the discriminator's loss; 0 leaves it out."""
    lecam_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of the running mean logits that a step keeps."""
    betas: tuple[Share, Share] | None = None
    """Of the discriminator's AdamW; None: those of ``run.optimizer``. (0.5, 0.9) in VQGAN and
    Open-MAGVIT2."""
    start_step: Count = 0
    """Training passes (one for each micro-batch) before either side sees the other."""
    channels: Annotated[int, Field(ge=GROUPS, multiple_of=GROUPS)] = 64
    """Of the discriminator's first convolution; doubled by each later one, up to eight times."""
    layers: Size = 3
    """Convolutions with stride 2."""

    @model_validator(mode="after")
    def _check_ignored(self) -> Self:
        if not self.lecam_weight:
            refuse_ignored(self, "lecam_weight 0", "lecam_decay")
        return self
