"""Models as Ray Data stages: frames of clips in, scores out.

```
 a video ─decode─▶ rows of a few clips with their frames ─▶ safety ─▶ text ─▶ clip ─commit─▶ files
          (tasks, killable decoder)                         (each a pool of actors)
```
"""
