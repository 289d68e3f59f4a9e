"""Preparation of a corpus: planning of parts, analysis, duplicates, projection.

::

    inputs ─planning─▶ units/ ─analysis─▶ clips/ ─duplicates─▶ clips/, summary
                     videos of each part   a file a part       parts with copies again
"""
