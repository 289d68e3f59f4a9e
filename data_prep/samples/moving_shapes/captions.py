"""Captions of moving shapes: plain English sentences from a small grammar.

```
caption   = count " on a grey background." {" " object}
count     = "One shape moves" | "Two shapes move" | "Three shapes move"
object    = "A " colour " " shape " " movement [", now faster, now slower"] "."
movement  = "moves " pace (" to the right" | " to the left" | " upwards" | " downwards")
          | "bounces " pace (" from side to side" | " up and down" | " around")
pace      = "slowly" | "quickly"
```

``models.evaluation.shapes.prompts`` reads them back. The two share no code, since the one floor may
not import the other and the sentence is all that a generated video has; a test holds them together.
"""

from collections.abc import Sequence

from data_prep.samples.moving_shapes.scene import Actor, Direction

_COUNTS = {1: "One shape moves", 2: "Two shapes move", 3: "Three shapes move"}
_MOVEMENTS: dict[Direction, tuple[str, str]] = {
    "right": ("moves", "to the right"),
    "left": ("moves", "to the left"),
    "up": ("moves", "upwards"),
    "down": ("moves", "downwards"),
    "side to side": ("bounces", "from side to side"),
    "up and down": ("bounces", "up and down"),
    "around": ("bounces", "around"),
}
_SPEEDS = {"slow": "slowly", "fast": "quickly"}


def caption(cast: Sequence[Actor]) -> str:
    """Return the sentences that say what a film of these one to three actors shows."""
    return " ".join([f"{_COUNTS[len(cast)]} on a grey background.", *map(_sentence, cast)])


def _sentence(actor: Actor) -> str:
    verb, where = _MOVEMENTS[actor.direction]
    change = ", now faster, now slower" if actor.pace == "changing" else ""
    return f"A {actor.colour} {actor.shape} {verb} {_SPEEDS[actor.speed]} {where}{change}."
