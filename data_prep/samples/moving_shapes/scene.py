"""The truth of a film of moving shapes, drawn from a seed: who is in it, and where at every moment.

Positions are closed forms of time in units of the picture's width (x to the right, y downwards), so
the same seed shows the same movement at any size and frame rate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import Literal, get_args

import numpy as np

Colour = Literal["red", "yellow", "green", "blue", "purple"]
Shape = Literal["circle", "square", "triangle"]
Direction = Literal["right", "left", "up", "down", "side to side", "up and down", "around"]
Speed = Literal["slow", "fast"]
Pace = Literal["constant", "changing"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
STRAIGHT: dict[Direction, tuple[int, int]] = {
    "right": (1, 0),
    "left": (-1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Directions that are kept for a whole scene, and so never meet an edge."""
SPEEDS: dict[Speed, tuple[float, float]] = {"slow": (0.09, 0.13), "fast": (0.30, 0.40)}
"""Mean speeds in widths a second; between them is a gap, so that nobody has to quibble."""
RADII = (0.11, 0.135)
"""Radius, as a share of the shorter side, of the circle whose area each shape has."""
CHANGE = 0.6
"""How far a changing pace swings around its mean speed, as a share of it."""
CHANGE_PERIOD_S = 2.0

# Half extents of each shape of the area of a circle of radius 1: left/right, up, down of its centre
_SQUARE = math.sqrt(math.pi) / 2
_SIDE = math.sqrt(4 * math.pi / math.sqrt(3))
EXTENTS: dict[Shape, tuple[float, float, float]] = {
    "circle": (1.0, 1.0, 1.0),
    "square": (_SQUARE, _SQUARE, _SQUARE),
    "triangle": (_SIDE / 2, _SIDE / math.sqrt(3), _SIDE / math.sqrt(12)),
}
REACH: dict[Shape, float] = {
    "circle": 1.0,
    "square": _SQUARE * math.sqrt(2),
    "triangle": _SIDE / math.sqrt(3),
}
"""Radius of the circle around each shape."""
_AHEAD_S = CHANGE_PERIOD_S * CHANGE / math.pi
"""The most that a changing pace can be ahead of a constant one."""
_TRIES = 200
_SAMPLES_PER_SECOND = 12
_HIDDEN_S = 0.8


@dataclass(frozen=True)
class Actor:
    """What a caption says of one object; it holds in every scene of a film."""

    colour: Colour
    shape: Shape
    direction: Direction
    speed: Speed
    pace: Pace


@dataclass(frozen=True)
class Placed:
    """An actor in one scene: its size and its path."""

    actor: Actor
    radius: float
    """Widths; of the circle of the same area."""
    start: tuple[float, float]
    """Widths; the centre at second 0 of the scene."""
    velocity: tuple[float, float]
    """Widths a second; the mean, before any bounce."""
    phase: float
    """Radians; where a changing pace begins."""

    def path(self, times_s: np.ndarray, height: float) -> np.ndarray:
        """Return where the centre is at each time, in widths, float64 (T, 2), x before y.

        Args:
            times_s: (T,) since the scene began.
            height: of the picture, in widths.
        """
        gone_s = times_s
        if self.actor.pace == "changing":
            turn = 2 * math.pi / CHANGE_PERIOD_S
            swing = math.cos(self.phase) - np.cos(turn * times_s + self.phase)
            gone_s = times_s + CHANGE * swing / turn
        axes = zip(self.start, self.velocity, self.room(height), strict=True)
        return np.stack([_folded(at + speed * gone_s, *span) for at, speed, span in axes], axis=1)

    def room(self, height: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return where the centre may be so that the whole shape is seen: spans of x and y."""
        side, above, below = (extent * self.radius for extent in EXTENTS[self.actor.shape])
        return (side, 1 - side), (above, height - below)


@dataclass(frozen=True)
class Scene:
    """One shot: its objects from the farthest to the nearest, and a grey background."""

    seconds: float
    greys: tuple[int, int]
    """0-255; the background's grey at its top and its bottom."""
    objects: tuple[Placed, ...]
    """Painted in this order, so a later one passes in front of an earlier one."""

    def overlaps(self, height: float) -> list[tuple[int, int, float, float]]:
        """Return overlaps as (farther, nearer, from_s, to_s), to a twelfth of a second.

        Shapes are taken for the circles around them, so this errs on the side of overlap.
        """
        return [
            (i, j, begin, end)
            for i, j, distances, reach in self._pairs(height)
            for begin, end in _spans(distances < reach)
        ]

    def excess_s(self, height: float) -> float:
        """Return how much too long objects hide each other, in seconds; 0 is as it should be.

        One may be more than half hidden for 0.8 s on end, and a pair overlap half of the time.
        """
        excess_s = 0.0
        for _, _, distances, reach in self._pairs(height):
            for begin, end in _spans(distances < reach / 3):
                excess_s = max(excess_s, end - begin - _HIDDEN_S)
            excess_s += max(0.0, float((distances < reach).mean()) - 0.5) * self.seconds
        return excess_s

    def _pairs(self, height: float) -> list[tuple[int, int, np.ndarray, float]]:
        """Return each pair with its distances over time and the sum of its outer radii, widths."""
        times_s = np.arange(0, self.seconds, 1 / _SAMPLES_PER_SECOND)
        paths = [placed.path(times_s, height) for placed in self.objects]
        reaches = [placed.radius * REACH[placed.actor.shape] for placed in self.objects]
        return [
            (i, j, np.linalg.norm(paths[i] - paths[j], axis=1), reaches[i] + reaches[j])
            for i, j in combinations(range(len(paths)), 2)
        ]


def draw_cast(
    rng: np.random.Generator, most: int, changing: float, scene_s: float, height: float
) -> list[Actor]:
    """Draw one to `most` actors of different colours, the farthest first.

    Args:
        rng: decides.
        most: objects, 1 to 3.
        changing: the share of objects whose pace changes.
        scene_s: seconds of a scene; a straight path has to fit in without a bounce.
        height: of the picture, in widths.
    """
    actors = int(rng.integers(1, most + 1))
    cast = []
    for colour in rng.permutation(COLOURS)[:actors].tolist():
        speed: Speed = "fast" if rng.random() < 0.5 else "slow"
        way = SPEEDS[speed][1] * (scene_s + _AHEAD_S)
        straight: list[Direction] = [
            name for name, (_, v) in STRAIGHT.items() if way < 0.6 * (height if v else 1)
        ]
        directions: list[Direction] = [*straight, "side to side", "up and down", "around"]
        pace: Pace = "changing" if rng.random() < changing else "constant"
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        direction = directions[int(rng.integers(len(directions)))]
        cast.append(Actor(colour, shape, direction, speed, pace))
    return cast


def draw_scene(
    rng: np.random.Generator, cast: Sequence[Actor], seconds: float, bright: bool, height: float
) -> Scene:
    """Place a cast so that its caption is true of every part of the scene.

    All objects are apart in the first frame. Of the placings tried, one is taken
    in which no object is hidden for long and, if there is one, some object passes behind another.

    Args:
        rng: decides.
        cast: the farthest first.
        seconds: of the scene.
        bright: a light background in place of a dark one.
        height: of the picture, in widths.
    """
    middle = int(rng.integers(165, 190) if bright else rng.integers(60, 85))
    slope = int(rng.integers(-14, 15))
    best, least = None, (math.inf, True)
    for tried in count():
        if best is not None and (tried >= _TRIES or least == (0.0, False)):
            return best
        objects = tuple(_place(rng, actor, seconds, height) for actor in cast)
        scene = Scene(seconds, (middle - slope, middle + slope), objects)
        overlaps = scene.overlaps(height)
        fault = (scene.excess_s(height), not overlaps and len(cast) > 1)
        if fault < least and all(begin > 0 for *_, begin, _ in overlaps):
            best, least = scene, fault
    raise AssertionError("count() does not end")


def _place(rng: np.random.Generator, actor: Actor, seconds: float, height: float) -> Placed:
    """Return a random path of an actor."""
    radius = float(rng.uniform(*RADII)) * min(1.0, height)
    speed = float(rng.uniform(*SPEEDS[actor.speed]))
    phase = float(rng.uniform(0, 2 * math.pi))
    u, v = _heading(rng, actor.direction)
    still = Placed(actor, radius, (0.5, height / 2), (0.0, 0.0), phase)
    start = []
    for span, heading in zip(still.room(height), (u, v), strict=True):
        low, high = span
        if actor.direction in STRAIGHT:
            way = speed * heading * (seconds + _AHEAD_S)
            low, high = max(low, low - way), min(high, high - way)
        start.append(float(rng.uniform(low, high)))
    return Placed(actor, radius, (start[0], start[1]), (speed * u, speed * v), phase)


def _heading(rng: np.random.Generator, direction: Direction) -> tuple[float, float]:
    """Return a unit vector."""
    if direction in STRAIGHT:
        return STRAIGHT[direction]
    sign = 1.0 if rng.random() < 0.5 else -1.0
    if direction == "side to side":
        return sign, 0.0
    if direction == "up and down":
        return 0.0, sign
    angle = math.radians(float(rng.uniform(35, 55)))
    return sign * math.cos(angle), math.sin(angle) * (1 if rng.random() < 0.5 else -1)


def _folded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return where a point that bounces between two walls is after straight ways to `values`."""
    room = high - low
    at = (values - low) % (2 * room)
    return low + np.minimum(at, 2 * room - at)


def _spans(inside_T: np.ndarray) -> list[tuple[float, float]]:
    """Return from when to when a condition holds, in seconds, from its samples."""
    edges = np.flatnonzero(np.diff(inside_T, prepend=False, append=False)) / _SAMPLES_PER_SECOND
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
