"""Text encoders: captions and prompts to what a generator is conditioned on.

A new kind is a section in `config`, a module that implements `spec.TextEncoder`, and a case in
`build`. The config travels with what was made by it, and `spec.fingerprint` says whether two
encoders are the same.
"""

from typing import Any

from infra import config as configs
from models.text.config import PiecesConfig, TextConfig
from models.text.pieces import PiecesEncoder
from models.text.spec import TextEncoder, TextSpec

__all__ = ["PiecesConfig", "TextConfig", "TextEncoder", "TextSpec", "build", "parse"]


class _Stated(configs.Section):
    text: TextConfig


def parse(tree: dict[str, Any]) -> TextConfig:
    """Return the config that shards or an artifact's summary state as plain values.

    Raises:
        UserError: it is of another version or of an unknown kind.
    """
    return configs.build(_Stated, {"text": tree}).text


def build(config: TextConfig) -> TextEncoder:
    """Return the text encoder of a config, ready to encode.

    Raises:
        UserError: its model is not there, or is another kind of file.
    """
    match config:
        case PiecesConfig():
            return PiecesEncoder(config)
