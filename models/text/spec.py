"""Interface of text encoders: what captions and prompts become, as data and as a protocol."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from infra.config import Section


class TextSpec(Section):
    """What an encoder makes of a text. Equal specs encode alike, but for where they cut."""

    kind: str
    """The encoder's kind, as in its config."""
    fingerprint: str
    """16 hex digits of the sha256 of the model's bytes, wherever they lie."""
    dtype: Literal["uint16", "int32", "float16"]
    """Type of the encoded arrays."""
    dim: Annotated[int, Field(ge=1)] | None
    """Width of an embedding; None: a token is one id."""


class TextEncoder(Protocol):
    """Turns texts into ids or embeddings."""

    @property
    def spec(self) -> TextSpec:
        """What it makes of a text."""
        ...

    @property
    def ids(self) -> int | None:
        """How many ids there are, 0 to one less; None where it gives embeddings."""
        ...

    def lengths(self, texts: Sequence[str | None]) -> list[int]:
        """Return the tokens of each text before any is cut; cheap, and says what `encode` cuts."""
        ...

    def encode(self, texts: Sequence[str | None]) -> list[np.ndarray]:
        """Return for each text an array (tokens,), or (tokens, dim), of ``spec.dtype``, unpadded.

        A text beyond the limit of its config loses its end; None is the empty text.
        """
        ...
