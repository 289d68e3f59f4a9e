"""The training engine: staged runs on Ray Train with DeepSpeed, which resume to the bit on CPU.

::

    run (launch) ─▶ Ray Train workers ─▶ for each stage: DeepSpeed engine, loader ─▶ steps (loop)
                                                    ▲
                       the latest whole checkpoint ─┘ (checkpoints)

A **stage** is a data mix, a batch size, a learning rate and a number of steps. A **task** is what
differs between models: how to build one, what its loss is, how it is judged.
"""
