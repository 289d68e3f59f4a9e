"""Movement of one track: velocities of the moments at which they can be measured."""

from dataclasses import dataclass

import numpy as np

from models.evaluation.shapes.tracks import Observation, Track

WINDOW_S = 0.4
"""A velocity is measured over about this long."""
STILL = 0.035
"""Widths a second; below this nothing is said to move."""
EDGE = 0.12
"""Widths; a shape that comes this near to an edge may turn there."""
_GAP_S = 0.12
_TURN, _TURN_SHARE = 0.045, 0.35
"""Widths a second, and share of the speed, along an axis, below which a change of sign is noise."""
_OFF_CLEAR, _OFF_TOUCHED = 0.3, 0.07
"""How far the area of a whole object may be from its usual one, as a share; less beside another."""


@dataclass(frozen=True)
class Movement:
    """Velocities over short windows in which a track was whole and did not turn, V of them."""

    times_s: np.ndarray
    """(V,) middles of the windows."""
    velocities: np.ndarray
    """(V, 2) widths a second."""
    turns: list[tuple[float, bool]]
    """When it turned, in seconds, and whether that was at an edge."""

    @property
    def speeds(self) -> np.ndarray:
        """Return the V speeds, widths a second."""
        return np.linalg.norm(self.velocities, axis=1)


def measure(track: Track, seen: Observation) -> Movement:
    """Measure a track's movement where nothing touches it."""
    fps, frames = seen.fps, np.array(track.frames)
    xy = np.array(track.xy)
    clear = np.array(track.clear)
    areas = np.array(track.areas)
    off = np.abs(areas / np.median(areas[clear] if clear.any() else areas) - 1)
    whole = (off < _OFF_TOUCHED) | clear & (off < _OFF_CLEAR)
    half = max(1, round(WINDOW_S * fps / 2))
    times, velocities, spans = [], [], []
    turns: list[tuple[float, bool]] = []
    for middle in range(len(frames)):
        first = int(np.searchsorted(frames, frames[middle] - half))
        last = int(np.searchsorted(frames, frames[middle] + half, side="right")) - 1
        inside = slice(first, last + 1)
        gap = np.diff(frames[inside]).max(initial=0)
        if (
            frames[last] - frames[first] < 2 * half
            or gap > max(1, _GAP_S * fps)
            or not whole[inside].all()
            or seen.scene(int(frames[first])) != seen.scene(int(frames[last]))
        ):
            continue
        before, after = (
            (xy[b] - xy[a]) / max(frames[b] - frames[a], 1) * fps
            for a, b in ((first, middle), (middle, last))
        )
        if _flips(before, after).any():
            continue
        times.append(frames[middle] / fps)
        velocities.append((xy[last] - xy[first]) / (frames[last] - frames[first]) * fps)
        spans.append((first, last))
    for k in range(1, len(times)):
        axes = _flips(velocities[k - 1], velocities[k])
        last, first = spans[k - 1][1], spans[k][0]
        same = seen.scene(int(frames[last])) == seen.scene(int(frames[first]))
        if axes.any() and same:
            between = xy[min(last, first) : max(last, first) + 1]
            away = _edge_distances(between, velocities[k - 1], track.radius, seen.height)
            hidden_s = max(0.0, (frames[first] - frames[last]) / fps)
            speed = np.maximum(abs(velocities[k - 1]), abs(velocities[k]))
            unseen = np.maximum(0, speed * hidden_s - abs(xy[first] - xy[last])) / 2
            at_edge = away < EDGE + unseen
            turns.append(((times[k - 1] + times[k]) / 2, bool(at_edge[axes].all())))
    return Movement(np.array(times), np.array(velocities).reshape(-1, 2), turns)


def _flips(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return for each axis whether the movement along it turned round, (2,) bool."""
    least = max(_TURN, _TURN_SHARE * min(np.linalg.norm(before), np.linalg.norm(after)))
    return (before * after < 0) & (np.minimum(abs(before), abs(after)) > least)


def _edge_distances(
    xy: np.ndarray, velocity: np.ndarray, radius: float, height: float
) -> np.ndarray:
    """Return how near a shape came to the edges that it headed for, widths, (2,)."""
    ahead = np.where(velocity > 0, np.array([1.0, height]) - xy, xy)
    return ahead.min(axis=0) - radius
