"""Video tokenizer: a causal 3-D CNN with a clustering vector quantizer."""

from models.tokenizer.config import CVQConfig, TokenizerConfig
from models.tokenizer.model import TokenizerOutput, VideoTokenizer, parameter_count

__all__ = [
    "CVQConfig",
    "TokenizerConfig",
    "TokenizerOutput",
    "VideoTokenizer",
    "parameter_count",
]
