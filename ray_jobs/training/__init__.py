"""The training engine: staged runs on Ray Train with DeepSpeed, which resume to the bit on CPU.

::

    run (launch) ─▶ Ray Train workers ─▶ for each stage: DeepSpeed engine, loader ─▶ steps (loop)
                                                    ▲
                       the latest whole checkpoint ─┘ (checkpoints)

A **stage** is a data mix, a batch size, a learning rate and a number of steps. A **task** is what
differs between models: how to build one, what its loss is, how it is judged.
"""

import os
import sys
from hashlib import sha256

# DeepSpeed builds an operator for CPU. torch keeps builds by Python and CUDA version only, so
# environments of one machine would build it in turn, for minutes, and while the other uses it.
os.environ.setdefault(
    "TORCH_EXTENSIONS_DIR",
    os.path.expanduser(
        f"~/.cache/torch_extensions/longtake-{sha256(sys.prefix.encode()).hexdigest()[:8]}"
    ),
)
