"""Models that score clips: frames of a clip table's kept clips in, scores out.

```
 a file of the table ─decoding─▶ rows of a few clips with frames ─▶ models (a pool of actors each)
        part_scoring (tasks) ◀──────────────── scores ──────────────────┘
```
"""
