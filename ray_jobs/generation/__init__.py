"""Generating systems: how prompts and trained models become finished films.

::

    prompts ─requests─▶ groups of videos ─stage─▶ … ─last stage─▶ frames ─films─▶ MP4, record

`system` is the interface that a system fills in, `kinds` the list of those there are, `requests`
which videos a run makes, `films` writes them, and `stages` runs a system's stages on a cluster.
"""
