"""HDR: leave out films of high dynamic range, which nothing here turns into the usual one.

Their code values, shown as if they were BT.709, are pale: white of 240 comes out as 143 of PQ.
"""

from typing import Annotated

from pydantic import Field

from data_prep.filters.record import Filter, Limit, Score
from data_prep.types import VideoInfo
from infra.config import Section


class HdrConfig(Section):
    """Which transfer functions to keep."""

    max_hdr: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0 leaves out films in PQ or HLG; 1 keeps them, with the pale colours of their raw values."""


def score(info: VideoInfo) -> float | None:
    """Return 1 for a film in PQ or HLG, 0 for any other; None for an image."""
    return None if info.media == "image" else float(bool(info.transfer))


FILTER = Filter(
    name="hdr",
    about="Films of high dynamic range (PQ, HLG).",
    thresholds=HdrConfig,
    score=Score("hdr", "video", "High dynamic range", "1: PQ or HLG", low=0, high=1),
    above=Limit("max_hdr", "hdr"),
    describe=lambda limits: "kept" if limits.max_hdr == 1 else "PQ and HLG left out",
    measure=lambda measured: score(measured.video),
)
