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


class PiecesEncoder:
    """A `models.text.spec.TextEncoder` that gives piece ids, without begin or end marks.

    Args:
        config: which model, and where texts are cut.

    Raises:
        UserError: the file is not there, or is not a SentencePiece model.
    """

    def __init__(self, config: PiecesConfig) -> None:
        file = packaged_model() if config.model is None else hub.local_file(config.model)
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
        except (OSError, RuntimeError):
            raise UserError(f"text model {file}: not a SentencePiece model file") from None
        self._max_tokens = config.max_tokens
        self.ids = self._pieces.vocab_size()
        self.spec = TextSpec(
            kind=config.kind,
            fingerprint=weights.fingerprint(file),
            dtype="uint16" if self.ids <= 1 << 16 else "int32",
            dim=None,
        )

    def lengths(self, texts: Sequence[str | None]) -> list[int]:
        """Return the pieces of each text, none of them cut."""
        return [len(row) for row in self._ids(texts)]

    def encode(self, texts: Sequence[str | None]) -> list[np.ndarray]:
        """Return the ids of each text, (tokens,) of ``spec.dtype``."""
        return [np.array(row[: self._max_tokens], self.spec.dtype) for row in self._ids(texts)]

    def _ids(self, texts: Sequence[str | None]) -> list[list[int]]:
        return self._pieces.encode([text or "" for text in texts], out_type=int)


def packaged_model() -> Path:
    """Return the file of the 32,000-piece model that the ``mistral-common`` package carries."""
    package, inside = PACKAGED_MODEL
    return Path(str(resources.files(package).joinpath(inside)))
