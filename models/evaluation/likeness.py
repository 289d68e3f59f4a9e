"""Distance of a video from film, by its figures: motion, detail, light and colours.

Any single figure can be gamed: a still drifts less than film, noise moves more. So every figure has
a range with two ends, and a video is as far from film as its worst figure is.

Distances are in steps: a doubling of `motion`, `sharpness` or `sharpness_ratio`, 0.2 of
`frame_correlation`, 16 of 255 of `brightness_change`, 32 of 442 of `colour_drift`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_STEPS = 10.0
"""As far as anything can be, so that one absurd figure does not hide the others."""
SHARE_LEFT_OUT = 0.15
"""Of the films that are given, at each end of a range: one of eight."""
ALLOWED_STEPS = 1.0
"""How far beyond the range of film a figure may be and count as film's."""


@dataclass(frozen=True)
class Figure:
    """One figure of a video, and what is usual of film."""

    name: str
    """As :mod:`models.evaluation.motion` and `measures.parquet` have it."""
    step: float
    """What counts as one step, on the scale that `logarithmic` says."""
    lowest: float
    """Of film as such, for where no film of the same kind is given to compare with."""
    highest: float
    logarithmic: float | None = None
    """Added before the logarithm to base 2; None: the scale is linear."""
    sign: bool = True
    """Whether the figure's sign counts."""

    def place(self, value: float) -> float:
        """Return where a value lies, in steps."""
        value = value if self.sign else abs(value)
        if self.logarithmic is not None:
            value = math.log2(max(value, 0.0) + self.logarithmic)
        return value / self.step


FIGURES = (
    Figure("motion", step=1, lowest=0.3, highest=40, logarithmic=0.05),
    Figure("sharpness", step=1, lowest=10, highest=8000, logarithmic=1),
    Figure("sharpness_ratio", step=1, lowest=0.5, highest=2, logarithmic=1 / 64),
    Figure("frame_correlation", step=0.2, lowest=0.6, highest=1),
    Figure("brightness_change", step=16, lowest=0, highest=32, sign=False),
    Figure("colour_drift", step=32, lowest=0, highest=64),
)
"""What film is told by."""
Range = tuple[float, float]


def film() -> dict[str, Range]:
    """Return the ranges of film as such, wide ones, where none is given to compare with."""
    return {figure.name: (figure.lowest, figure.highest) for figure in FIGURES}


def ranges(films: Sequence[Mapping[str, float | None]]) -> dict[str, Range]:
    """Return the ranges of some films: from the least to the most of each figure, less a few.

    At each end `SHARE_LEFT_OUT` of them are left out, rounded down, so that one clip in eight that
    fades to black does not make fading what film does.

    Args:
        films: figures of each by name; one that is None or missing was not measured.
    """
    found = {}
    for figure in FIGURES:
        values = [value for each in films if (value := each.get(figure.name)) is not None]
        values = values if figure.sign else [abs(value) for value in values]
        if values:  # of what changes over time, film as such may: from not at all to `highest`
            steady = figure.lowest == 0
            out = int(SHARE_LEFT_OUT * len(values))
            within = sorted(values)[out : len(values) - out]
            low, high = within[0], within[-1]
            found[figure.name] = (0.0, max(high, figure.highest)) if steady else (low, high)
    return found


def steps(figures: Mapping[str, float | None], of_film: Mapping[str, Range]) -> dict[str, float]:
    """Return by how many steps each figure of a video is beyond film's range; below it is negative.

    Args:
        figures: of the video; one that is None, missing or not in `of_film` is left out.
        of_film: from :func:`ranges` or :func:`film`.
    """
    found = {}
    for figure in FIGURES:
        value = figures.get(figure.name)
        if value is None or figure.name not in of_film:
            continue
        at, (low, high) = figure.place(value), map(figure.place, of_film[figure.name])
        beyond = min(at - low, 0.0) if at < low else max(at - high, 0.0)
        found[figure.name] = max(-MOST_STEPS, min(MOST_STEPS, beyond))
    return found


def distance(figures: Mapping[str, float | None], of_film: Mapping[str, Range]) -> float:
    """Return how many steps the worst figure of a video is from the middle of film's range.

    It is 0 at best. A still, noise, a blank screen or a fade to black is further than film, but a
    generated video may be further still: one whose detail is lost, for instance.

    Raises:
        ValueError: no figure of the video can be compared.
    """
    places = [
        abs(figure.place(value) - sum(map(figure.place, of_film[figure.name])) / 2)
        for figure in FIGURES
        if (value := figures.get(figure.name)) is not None and figure.name in of_film
    ]
    if not places:
        raise ValueError("no figure was measured of both the video and the films")
    return min(MOST_STEPS, max(places))
