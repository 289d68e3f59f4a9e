"""Verdicts on generated videos: a headline figure for each way in which they may differ from film.

Each shows the video that is worst by it, so that one good video hides no bad one. The ranges are
those of held-out film where measures of it are given, else wide ones of film as such.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from models.evaluation import likeness
from models.evaluation.likeness import ALLOWED_STEPS, Range
from ray_jobs.reporting.headline import Figure, measured

_SAID = {
    "motion": ("Motion", "of 255", "as good as still", "changes more than film does"),
    "sharpness": ("Detail", "Laplacian variance", "less detail than film", "more detail than film"),
    "sharpness_ratio": ("Detail kept to the end", "times", "loses detail", "gains detail"),
    "frame_correlation": ("Correlation of consecutive frames", "of luma",
                          "flickers like noise", "as good as still"),
    "brightness_change": ("Change of brightness", "of 255", "darkens", "brightens"),
    "colour_drift": ("Colour drift", "of 442", "", "colours drift"),
}  # fmt: skip
"""Title, unit, and what it means to be below or above film's range."""


def figures(
    records: Iterable[Mapping[str, Any]], of_film: Mapping[str, Range] | None
) -> list[Figure]:
    """Return a figure for each of :data:`likeness.FIGURES`.

    Args:
        records: of the generated videos, rows of `measures_table`; read once.
        of_film: the ranges of held-out film; None takes those of film as such.
    """
    ranges = of_film or likeness.film()
    name = "film as such" if of_film is None else "held-out film"
    worst: dict[str, tuple[float, float]] = {}
    for record in records:
        for figure, beyond in likeness.steps(record, ranges).items():
            if figure not in worst or abs(beyond) > abs(worst[figure][1]):
                worst[figure] = record[figure], beyond
    return [_figure(figure, name, ranges, worst.get(figure.name)) for figure in likeness.FIGURES]


def _figure(figure: likeness.Figure, film: str, ranges: Mapping[str, Range], worst: Any) -> Figure:
    title, unit, below, above = _SAID[figure.name]
    low, high = ranges.get(figure.name, (figure.lowest, figure.highest))
    shown = f"{_round(low)} to {_round(high)}"
    shown = shown if figure.sign else f"up to {_round(high)} either way"
    made = Figure(figure.name, title, unit, film, f"like film: {shown}, or one step beyond")
    if worst is None:
        return made
    value, beyond = worst
    met = abs(beyond) <= ALLOWED_STEPS
    is_below = beyond < 0 if figure.sign else value < 0
    remark = f"like film ({shown})" if met else f"{below if is_below else above} ({shown})"
    nearer = low if beyond < 0 else high
    return measured(made, value, nearer, ALLOWED_STEPS - abs(beyond), met, remark)


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
