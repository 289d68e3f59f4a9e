"""Data preparation: pure functions from video bytes to table rows. No Ray.

No torch either, but where the optional TransNetV2 finds the cuts (:mod:`data_prep.transnet`).

```
 directory, archive or manifest                          one row is one video
        │ manifest                                        ┌─ kept         clips, scores, thumbnails
        ▼                                                 ├─ filtered     reason: still, …
 analysis ── probe ── decode ──▶ scenes ──▶ filters ──▶ row ─ quarantined  reason: truncated, …
                       │ child process                    │
                       │ (decode_worker:                  ▼ schemas
                       │  decord, then PyAV)          clip table
                       ▼                                  │ one row is one clip from here on
                  decode.span  ◀──────────────────────────┘
                       │ frames at model resolution
                       ▼
                    shards ──▶ loader
```

Vocabulary: a *video* is one input file; a *shot* is what lies between two cuts; a *clip* is a shot
or a window of a long one. *Filtered* was read and not wanted; *quarantined* could not be read.
A *score* is always stored; a *verdict* is what a threshold makes of it.

Start reading at :func:`data_prep.analysis.analyse`.
"""
