"""Loong's video generator: a LLaMA decoder over text and video tokens.

```
text ids, codes ─▶ sequence ─▶ model ─▶ loss                        (training)
text ids ─▶ generate (cache, sampling) ─▶ codes                     (one window)
text ids ─▶ extension: generate ─▶ decode ─▶ re-encode the end ─▶ … (long videos)
```
"""

from models.autoregressive.loong.config import LOONG_3B, LOONG_7B, LOONG_700M, ARConfig
from models.autoregressive.loong.extension import Chunk, Cue, Extension, extend
from models.autoregressive.loong.generate import generate_tokens
from models.autoregressive.loong.loss import (
    early_frame_weighted_loss,
    frame_range_losses,
    next_token_loss,
    token_nll,
)
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import TokenBatch, build_batch
from models.autoregressive.loong.vocabulary import Vocabulary
from models.autoregressive.sampling import Sampling

__all__ = [
    "LOONG_3B",
    "LOONG_7B",
    "LOONG_700M",
    "ARConfig",
    "Chunk",
    "Cue",
    "Extension",
    "LongtakeLlama",
    "Sampling",
    "TokenBatch",
    "Vocabulary",
    "build_batch",
    "early_frame_weighted_loss",
    "extend",
    "frame_range_losses",
    "generate_tokens",
    "next_token_loss",
    "token_nll",
]
