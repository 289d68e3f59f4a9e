"""Text as ids of a SentencePiece model, such as the 32,000 pieces of LLaMA and so of Loong."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import sentencepiece

from infra.errors import UserError
from models import hub, weights
from models.text.config import PiecesConfig
from models.text.spec import TextSpec

PACKAGED_MODEL = ("mistral_common", "data/tokenizer.model.v1")


class TextTokenizer:
    """A SentencePiece model: one text to piece ids and back.

    Args:
        model: path or URI of a SentencePiece model; None takes the 32,000-piece model that the
            ``mistral-common`` package carries.

    Raises:
        UserError: the file is not there, or is not a SentencePiece model.
    """

    def __init__(self, model: str | None = None) -> None:
        self.file = _packaged() if model is None else hub.local_file(model)
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(self.file))
        except (OSError, RuntimeError):
            raise UserError(f"text model {self.file}: not a SentencePiece model file") from None

    @property
    def size(self) -> int:
        """The number of pieces."""
        return self._pieces.vocab_size()

    def encode(self, text: str | None, max_tokens: int | None) -> list[int]:
        """Return the first `max_tokens` piece ids of `text`; None: all of them."""
        return self._pieces.encode(text or "", out_type=int)[:max_tokens]

    def decode(self, ids: list[int]) -> str:
        """Return the text of piece ids."""
        return self._pieces.decode(ids)


class PiecesEncoder:
    """A `models.text.spec.TextEncoder` that gives piece ids, without begin or end marks.

    Args:
        config: which model, and where texts are cut.

    Raises:
        UserError: as `TextTokenizer`.
    """

    def __init__(self, config: PiecesConfig) -> None:
        self._pieces, self._max_tokens = TextTokenizer(config.model), config.max_tokens
        self.spec = TextSpec(
            kind=config.kind,
            fingerprint=weights.fingerprint(self._pieces.file),
            dtype="uint16" if self._pieces.size <= 1 << 16 else "int32",
            dim=None,
        )

    def lengths(self, texts: Sequence[str | None]) -> list[int]:
        """Return the pieces of each text, none of them cut."""
        return [len(self._pieces.encode(text, None)) for text in texts]

    def encode(self, texts: Sequence[str | None]) -> list[np.ndarray]:
        """Return the ids of each text, (tokens,) of ``spec.dtype``."""
        rows = (self._pieces.encode(text, self._max_tokens) for text in texts)
        return [np.array(row, self.spec.dtype) for row in rows]


def _packaged() -> Path:
    package, inside = PACKAGED_MODEL
    return Path(str(resources.files(package).joinpath(inside)))
