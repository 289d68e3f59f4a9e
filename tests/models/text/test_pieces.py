"""The 32,000-piece text model."""

from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from infra.errors import UserError
from models import text
from models.text import PiecesConfig, TextEncoder
from models.text.pieces import PiecesEncoder, packaged_model

CAPTION = "A clown fish swimming through the coral reef."


def test_ids_are_those_of_the_packaged_model() -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(packaged_model()))
    (ids,) = PiecesEncoder(PiecesConfig()).encode([CAPTION])
    assert pieces.vocab_size() == PiecesEncoder(PiecesConfig()).ids == 32_000
    assert ids.tolist() == pieces.encode(CAPTION)
    assert pieces.decode(ids.tolist()) == CAPTION


def test_texts_are_unpadded_and_cut() -> None:
    texts = [CAPTION, None, "A fish."]
    whole = PiecesEncoder(PiecesConfig())
    ids, none, short = whole.encode(texts)
    assert whole.spec.dtype == "uint16"
    assert ids.dtype == short.dtype == np.uint16
    assert none.shape == (0,)
    assert whole.lengths(texts) == [len(ids), 0, len(short)]
    cutting = PiecesEncoder(PiecesConfig(max_tokens=3))
    assert np.array_equal(cutting.encode([CAPTION])[0], ids[:3])
    assert cutting.lengths(texts) == whole.lengths(texts)


def test_a_config_is_read_back() -> None:
    config = PiecesConfig(max_tokens=7)
    assert text.parse(config.model_dump(mode="json")) == config
    with pytest.raises(UserError, match="text"):
        text.parse({"kind": "t5"})


def test_the_fingerprint_is_of_the_bytes_wherever_they_lie(tmp_path: Path) -> None:
    packaged: TextEncoder = text.build(PiecesConfig())
    copy = tmp_path / "copy.model"
    copy.write_bytes(packaged_model().read_bytes())
    assert text.build(PiecesConfig(model=str(copy))).spec == packaged.spec
    assert packaged.spec.kind == "pieces"
    assert packaged.spec.dim is None
    assert len(packaged.spec.fingerprint) == 16


def test_another_file_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.model"
    with pytest.raises(UserError, match=r"bad\.model: not found"):
        PiecesEncoder(PiecesConfig(model=str(bad)))
    bad.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"bad\.model: not a SentencePiece model"):
        PiecesEncoder(PiecesConfig(model=str(bad)))
