"""What a config refuses, and that it survives being written and read."""

import pytest
from pydantic import ValidationError

from infra import config as infra_config
from models.autoregressive.loong import LOONG_700M, ARConfig


def test_round_trip():
    tree = infra_config.as_tree(LOONG_700M)
    assert infra_config.build(ARConfig, tree) == LOONG_700M


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": 30, "heads": 4}, "multiple of 2"),
        ({"hidden": 64, "heads": 4, "kv_heads": 3}, "kv_heads 3"),
        ({"layers": 0}, "greater than or equal"),
    ],
)
def test_refuses_impossible_shapes(settings: dict, words: str):
    with pytest.raises(ValidationError, match=words):
        ARConfig(**settings)
