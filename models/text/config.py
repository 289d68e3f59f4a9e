"""Settings of text encoders, one section a kind."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from infra.config import Section
from models.hub import WeightsUri


class PiecesConfig(Section):
    """Ids of the pieces of a SentencePiece model."""

    kind: Literal["pieces"] = "pieces"
    model: WeightsUri | None = None
    """A SentencePiece model file; None: the 32,000-piece model of `mistral-common`, LLaMA's."""
    max_tokens: Annotated[int, Field(ge=0)] = 252
    """Longer texts lose their end."""


def _kind_stated(value: Any) -> Any:
    return {"kind": "pieces", **value} if isinstance(value, dict) else value


TextConfig = Annotated[
    Annotated[PiecesConfig, Field(discriminator="kind")], BeforeValidator(_kind_stated)
]
"""The text encoder, with its settings: one section for each kind there is; `pieces` is implied."""
