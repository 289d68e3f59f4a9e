"""Text tokens: a SentencePiece model of 32,000 pieces, as LLaMA's and so Loong's."""

from importlib import resources
from pathlib import Path

import sentencepiece

from infra.errors import UserError

PACKAGED_MODEL = ("mistral_common", "data/tokenizer.model.v1")


class TextTokenizer:
    """Turn captions and prompts into piece ids.

    Args:
        model: path of a SentencePiece model; None takes the 32,000-piece model that the
            ``mistral-common`` package carries.

    Raises:
        UserError: the file is not a SentencePiece model.
    """

    def __init__(self, model: str | None = None) -> None:
        package, inside = PACKAGED_MODEL
        path = Path(model) if model else Path(str(resources.files(package).joinpath(inside)))
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError):
            raise UserError(f"text model {path}: not a SentencePiece model file") from None

    @property
    def size(self) -> int:
        """The number of pieces."""
        return self._pieces.vocab_size()

    def encode(self, text: str | None, max_tokens: int) -> list[int]:
        """Return at most `max_tokens` piece ids of `text`, without begin or end marks."""
        return self._pieces.encode(text or "", out_type=int)[:max_tokens]

    def decode(self, ids: list[int]) -> str:
        """Return the text of piece ids."""
        return self._pieces.decode(ids)
