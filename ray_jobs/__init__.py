"""Jobs that run on a Ray cluster: one config in, one artifact out.

Each is called as ``python -m ray_jobs.<job>``::

    prepare ─▶ tokenize (pixels) ─▶ train_tokenizer ─▶ tokenize (codes)
                                                          └─▶ train_autoregressive ─▶ generate
    evaluate reads any of their artifacts
"""

from infra.interrupts import guard_imports

guard_imports()
