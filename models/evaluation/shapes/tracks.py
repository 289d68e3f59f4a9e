"""Tracks of coloured objects over a video, read frame by frame.

Of each colour the object that goes on where the last one was is followed; any other of that colour
is counted as an extra one. What is kept is a few numbers a frame and one mean outline a second, so
a minute costs no more memory than it has frames times colours.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.evaluation.shapes import colours, objects, outlines
from models.evaluation.shapes.prompts import Colour

PART_S = 1.0
"""A mean outline and a mean hue are kept for each part of this length."""

_RECENT = 25
_STAIN = 0.4
"""Widths; further than an object goes while it is hidden, mostly."""


@dataclass
class Part:
    """What a track was like within one part of the video."""

    start_s: float
    clear: int = 0
    """Frames in which nothing touched it."""
    outline_HW: np.ndarray = field(
        default_factory=lambda: np.zeros((outlines.SIDE_PX, outlines.SIDE_PX), np.float32)
    )
    """The sum of its outlines in them."""
    point: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """The sum of its colours in them."""


@dataclass
class Track:
    """One colour's object; the lists have one entry for each frame in which it was seen."""

    colour: Colour
    frames: list[int] = field(default_factory=list)
    xy: list[tuple[float, float]] = field(default_factory=list)
    """Widths."""
    areas: list[float] = field(default_factory=list)
    """Square widths."""
    clear: list[bool] = field(default_factory=list)
    """Whether nothing touched it."""
    parts: dict[int, Part] = field(default_factory=dict)

    @property
    def radius(self) -> float:
        """Return the radius of the circle of its usual area, in widths."""
        return math.sqrt(float(np.median(self.areas)) / math.pi)

    def outline(self) -> np.ndarray | None:
        """Return its mean outline, or None when something always touched it."""
        clear = sum(part.clear for part in self.parts.values())
        total_HW = np.sum([part.outline_HW for part in self.parts.values()], axis=0)
        return total_HW / clear if clear else None

    def hue_deg(self) -> float | None:
        """Return its mean hue, or None when something always touched it."""
        total = sum((part.point for part in self.parts.values()), np.zeros(2))
        return colours.hue_deg(total) if any(part.clear for part in self.parts.values()) else None


@dataclass(frozen=True)
class Observation:
    """What a video shows, whatever it should show."""

    frames: int
    fps: float
    height: float
    """Of the picture, in widths."""
    cuts: tuple[int, ...]
    """Frames that are known to begin a scene."""
    tracks: dict[Colour, Track]
    counts: np.ndarray
    """Objects seen in each frame, (frames,)."""

    def scene(self, frame: int) -> int:
        """Return the number of the scene that a frame is in."""
        return int(np.searchsorted(self.cuts, frame, side="right"))


def observe(frames: Iterable[np.ndarray], fps: float, cuts: Sequence[int] = ()) -> Observation:
    """Follow the coloured objects of a video.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size of at least 16 px; each is looked at once.
        fps: frames per second, above 0.
        cuts: frames that are known to begin a scene; elsewhere a jump is a jump.

    Raises:
        ValueError: a frame or a number is not as stated, or there is no frame.
    """
    if not fps > 0:
        raise ValueError(f"fps {fps}: allowed is above 0")
    tracks: dict[Colour, Track] = {}
    counts = []
    shape = None
    for number, frame_HWC in enumerate(frames):
        _check(frame_HWC, shape)
        shape = frame_HWC.shape
        seen = objects.find(frame_HWC)
        counts.append(len(seen))
        for place, colour in enumerate(colours.COLOURS):
            same = [one for one in seen if one.place == place]
            track = tracks.get(colour) or Track(colour)
            if same and (one := _next(track, number, same, fps)) is not None:
                _extend(tracks.setdefault(colour, track), number, one, fps)
    if shape is None:
        raise ValueError("a video without frames")
    height = shape[0] / shape[1]
    return Observation(len(counts), fps, height, tuple(cuts), tracks, np.array(counts))


def _next(track: Track, frame: int, same: list[objects.Seen], fps: float) -> objects.Seen | None:
    """Return the object that goes on with a track: the nearest, after a long gap the largest.

    It is None where all that there is lies elsewhere and is much smaller: a stain, not the object.
    """
    if not track.frames:
        return same[0]
    late = frame - track.frames[-1] > max(1.0, 0.5 * fps)
    best = same[0] if late else min(same, key=lambda one: math.dist((one.x, one.y), track.xy[-1]))
    small = best.area < 0.5 * float(np.median(track.areas[-_RECENT:]))
    return None if small and math.dist((best.x, best.y), track.xy[-1]) > _STAIN else best


def _extend(track: Track, frame: int, seen: objects.Seen, fps: float) -> None:
    track.frames.append(frame)
    track.xy.append((seen.x, seen.y))
    track.areas.append(seen.area)
    track.clear.append(not seen.touching)
    number = int(frame / fps / PART_S)
    part = track.parts.setdefault(number, Part(number * PART_S))
    if not seen.touching:
        part.clear += 1
        part.outline_HW += seen.outline_HW
        part.point += seen.point


def _check(frame: np.ndarray, shape: tuple[int, ...] | None) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame {frame.shape} {frame.dtype}: allowed is uint8 (H, W, 3)")
    if min(frame.shape[:2]) < 16 or shape not in (None, frame.shape):
        raise ValueError(f"frame {frame.shape}: allowed is one size of at least 16 px a side")
