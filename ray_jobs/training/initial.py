"""Initial weights of a training run."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from infra.config import Section, Uri


class InitialConfig(Section):
    """An exported model to start from; its artifact's fingerprint counts in the run's."""

    model_config = ConfigDict(serialize_by_alias=True)

    uri: Annotated[Uri, Field(alias="from")]
    """URI of the exported model."""
    how: Literal["same", "inflate", "base"] = "same"
    """same: a model of the same kind and shape. inflate: an image tokenizer, whose temporal kernels
    may be shorter. base: frozen weights below parts that train; they stay out of checkpoints and
    exports, and every attempt reads them again from here."""
    trained_on: Literal["images", "videos"] | None = None
    """What a tokenizer to inflate has seen: after images alone, its taps in time are only their
    sum. None: images. Of ``how: inflate`` only."""

    @model_validator(mode="after")
    def _only_inflated(self) -> Self:
        if self.trained_on is not None and self.how != "inflate":
            raise ValueError(f"trained_on is of how: inflate only; how is {self.how}")
        return self
