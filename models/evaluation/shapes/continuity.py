"""Continuity of a track: whether it is one object from the first frame to the last."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from models.evaluation.shapes import colours, outlines
from models.evaluation.shapes.tracks import Observation, Track

FLICKER_S = 0.15
"""An object may be missed for this long, by one frame in any case."""
HIDDEN_S = 3.0
"""An object may be behind another for this long."""
_OFTEN = 0.25
"""The share of a video's frames that must show an object, for it to count where it is hidden."""
_NEAR = 0.12
"""Widths between the outlines of two objects of which one may soon hide the other."""
_SPEED_MAX = 0.9
"""Widths a second; what is faster jumps."""
_SLACK = 0.1
"""Widths by which a centre may be off; a partly covered object's by its radius more."""
_CLEAR_MIN = 0.3
"""The least share of a part's frames that must show an object whole, for its shape to be judged."""


def fault(track: Track, seen: Observation) -> str | None:
    """Return why a track is not one object throughout, or None when it is."""
    for begin, end in _gaps(track, seen):
        if _missing(begin, end, seen) and not _behind(track, seen, begin, end):
            return _vanished(track, seen, begin, end)
    whole = 0.8 * math.pi * track.radius**2
    for (a, b), (p, q), areas in zip(
        pairwise(track.frames), pairwise(track.xy), pairwise(track.areas), strict=True
    ):
        way = math.dist(p, q)
        partly = sum(area < whole for area in areas)
        reach = _SPEED_MAX * (b - a) / seen.fps + _SLACK + partly * track.radius
        if seen.scene(a) == seen.scene(b) and way > reach:
            return f"jumps by {way:.2f} widths at {b / seen.fps:.1f} s"
    return _changed(track, seen)


def hidden(seen: Observation) -> np.ndarray:
    """Return how many objects are behind others in each frame, (frames,)."""
    counts = np.zeros(seen.frames, np.int64)
    for track in seen.tracks.values():
        if len(track.frames) < _OFTEN * seen.frames:
            continue
        for begin, end in _gaps(track, seen):
            if not _missing(begin, end, seen) or _behind(track, seen, begin, end):
                counts[begin + 1 : end] += 1
    return counts


def _gaps(track: Track, seen: Observation) -> Iterator[tuple[int, int]]:
    """Yield the frames around each stretch in which a track was not seen, within one scene."""
    borders = [0, *seen.cuts, seen.frames]
    for first, stop in pairwise(borders):
        inside = [frame for frame in track.frames if first <= frame < stop]
        for begin, end in pairwise([first - 1, *inside, stop]):
            if end - begin > 1:
                yield begin, end


def _missing(begin: int, end: int, seen: Observation) -> bool:
    return end - begin - 1 > max(1, FLICKER_S * seen.fps)


def _behind(track: Track, seen: Observation, begin: int, end: int) -> bool:
    """Return whether another object was near enough to hide a track that was not seen."""
    if (end - begin) / seen.fps > HIDDEN_S:
        return False
    for frame in (begin, end):
        if (own := _at(track, frame)) is None:
            continue
        for other in seen.tracks.values():
            at = None if other is track else _at(other, frame)
            reach = _NEAR + 1.3 * (track.radius + other.radius)
            if at is not None and math.dist(own, at) < reach:
                return True
    return False


def _at(track: Track, frame: int) -> tuple[float, float] | None:
    place = int(np.searchsorted(track.frames, frame))
    found = place < len(track.frames) and track.frames[place] == frame
    return track.xy[place] if found else None


def _vanished(track: Track, seen: Observation, begin: int, end: int) -> str:
    """Return in words how a track was lost: by another colour in its place, or by nothing."""
    if begin < 0 or begin in [cut - 1 for cut in seen.cuts]:
        return f"not seen before {end / seen.fps:.1f} s"
    at = _at(track, begin)
    for other in seen.tracks.values():
        then = _at(other, begin + 1)
        if other is not track and at and then and math.dist(at, then) < _SLACK:
            return f"turns {other.colour} at {(begin + 1) / seen.fps:.1f} s"
    return f"vanishes at {(begin + 1) / seen.fps:.1f} s, with nothing near that could hide it"


def _changed(track: Track, seen: Observation) -> str | None:
    """Return when a track changed its shape or its hue, or None."""
    shape, hue = None, track.hue_deg()
    for part in track.parts.values():
        if part.clear < max(2, _CLEAR_MIN * seen.fps):
            continue
        own = colours.hue_deg(part.point)
        if hue is not None and abs((own - hue + 180) % 360 - 180) > colours.TOLERANCE_DEG:
            return f"changes its hue from {hue:.0f} to {own:.0f} degrees at {part.start_s:.0f} s"
        name = outlines.named(outlines.misfits(part.outline_HW / part.clear))
        if shape is not None and name is not None and name != shape:
            return f"turns from a {shape} into a {name} at about {part.start_s:.0f} s"
        shape = name or shape
    return None
