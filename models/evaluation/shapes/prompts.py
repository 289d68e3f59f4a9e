"""Reader of prompts about moving shapes: from plain English sentences to what must be seen.

```
prompt    = [count " on a grey background."] object {" " object}
object    = "A " colour " " shape " " movement [", now faster, now slower"] "."
movement  = "moves " pace (" to the right" | " to the left" | " upwards" | " downwards")
          | "bounces " pace (" from side to side" | " up and down" | " around")
pace      = "slowly" | "quickly"
```

The corpus ``data_prep.samples.moving_shapes`` writes such captions with code of its own: a video's
prompt is all that there is to hold it against, and two readings can check each other.
"""

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

Colour = Literal["red", "yellow", "green", "blue", "purple"]
Shape = Literal["circle", "square", "triangle"]
Direction = Literal["right", "left", "up", "down", "side to side", "up and down", "around"]
Speed = Literal["slow", "fast"]

_DIRECTIONS: dict[str, Direction] = {
    "moves to the right": "right",
    "moves to the left": "left",
    "moves upwards": "up",
    "moves downwards": "down",
    "bounces from side to side": "side to side",
    "bounces up and down": "up and down",
    "bounces around": "around",
}
_SPEEDS: dict[str, Speed] = {"slowly": "slow", "quickly": "fast"}
_NUMBERS = {"one shape moves": 1, "two shapes move": 2, "three shapes move": 3}
_COUNT = re.compile(rf"({'|'.join(_NUMBERS)}) on a grey background")
_OBJECT = re.compile(
    rf"an? ({'|'.join(get_args(Colour))}) ({'|'.join(get_args(Shape))}) (moves|bounces) "
    rf"({'|'.join(_SPEEDS)}) ([a-z ]+?)(, now faster, now slower)?"
)


@dataclass(frozen=True)
class ExpectedObject:
    """One object that a video must show."""

    colour: Colour
    shape: Shape
    direction: Direction
    """The first four are kept throughout; the others bounce off the picture's edges."""
    speed: Speed
    changing: bool
    """Whether it moves now faster, now slower."""

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Expectation:
    """What a video must show: these objects, each of a colour of its own, and no others."""

    objects: tuple[ExpectedObject, ...]

    def __post_init__(self) -> None:
        colours = [one.colour for one in self.objects]
        if not colours or len(set(colours)) < len(colours):
            raise ValueError(
                f"objects of colours {colours}: allowed are one or more, all different"
            )


def parse(prompt: str) -> Expectation:
    """Return what a prompt asks for.

    Raises:
        ValueError: a sentence is not of the grammar, the count is not that of the objects, or two
            objects have one colour.
    """
    objects, stated = [], None
    for sentence in re.findall(r"[^.]+", prompt.lower()):
        words = " ".join(sentence.split())
        if not words:
            continue
        if found := _COUNT.fullmatch(words):
            stated = _NUMBERS[found[1]]
        else:
            objects.append(_object(words))
    if stated not in (None, len(objects)):
        raise ValueError(f"prompt {prompt!r}: speaks of {stated} shapes and names {len(objects)}")
    return Expectation(tuple(objects))


def _object(words: str) -> ExpectedObject:
    found = _OBJECT.fullmatch(words)
    direction = _DIRECTIONS.get(f"{found[3]} {found[5]}") if found else None
    if found is None or direction is None:
        raise ValueError(f"sentence {words!r}: allowed is such as {_EXAMPLE!r}")
    return ExpectedObject(
        colour=cast(Colour, found[1]),
        shape=cast(Shape, found[2]),
        direction=direction,
        speed=_SPEEDS[found[4]],
        changing=found[6] is not None,
    )


_EXAMPLE = "A red circle moves slowly to the right."
