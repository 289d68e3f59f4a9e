"""The 32,000-piece text model."""

from pathlib import Path

import pytest

from infra.errors import UserError
from models.text.pieces import TextTokenizer


def test_pieces_round_trip_and_are_cut():
    text = TextTokenizer()
    ids = text.encode("A clown fish swimming through the coral reef.", 64)
    assert text.size == 32_000
    assert text.decode(ids) == "A clown fish swimming through the coral reef."
    assert text.encode("A clown fish swimming through the coral reef.", 3) == ids[:3]
    assert text.encode(None, 8) == []


def test_another_file_is_refused(tmp_path: Path):
    bad = tmp_path / "bad.model"
    bad.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"bad\.model: not a SentencePiece model"):
        TextTokenizer(str(bad))
