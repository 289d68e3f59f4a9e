"""What an ablation found: figures of arms by seed, beside the predictions that came first."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from infra.config import Section
from infra.errors import UserError
from ray_jobs.reporting.charts import AMBER, MUTED, STYLE, TEAL

Figures = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Arm to seed to figure to its value."""
_PANEL_IN = (4.4, 2.6)


class Prediction(Section):
    """That a figure is lower in one arm than in another, written down before the first run."""

    says: str
    """In words, with its source."""
    figure: str
    lower: str
    """The arm with the lower figure."""
    than: str
    """The arm with the higher one."""


def check(predictions: Sequence[Prediction], arms: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError unless every prediction is of two arms that both have its figure.

    Args:
        predictions: as configured.
        arms: arm to the figures that it can have.
    """
    for number, prediction in enumerate(predictions):
        for key in ("lower", "than"):
            arm = getattr(prediction, key)
            if arm not in arms:
                raise UserError(
                    f"predictions.{number}.{key}: no arm {arm}; there are {', '.join(arms)}"
                )
            if prediction.figure not in arms[arm]:
                raise UserError(
                    f"predictions.{number}.figure: {prediction.figure} is no figure of {arm}; "
                    f"allowed are {', '.join(arms[arm])}"
                )


def outcomes(predictions: Sequence[Prediction], figures: Figures) -> list[dict[str, Any]]:
    """Return each prediction with what was found, seed by seed.

    ``differences`` has the higher arm's figure less the lower one's for each seed, None where one
    of them is missing; ``held`` counts those above 0 of ``seeds``.
    """
    found = []
    for prediction in predictions:
        lower, than = figures[prediction.lower], figures[prediction.than]
        differences = {
            seed: than[seed][prediction.figure] - lower[seed][prediction.figure]
            if prediction.figure in lower[seed] and prediction.figure in than[seed]
            else None
            for seed in lower
        }
        there = [value for value in differences.values() if value is not None]
        found.append(
            {
                **prediction.model_dump(),
                "differences": {str(seed): value for seed, value in differences.items()},
                "mean": float(np.mean(there)) if there else None,
                "held": sum(value > 0 for value in there),
                "seeds": len(differences),
            }
        )
    return found


def lines(outcome: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the outcomes as lines for people."""
    said = []
    for each in outcome:
        mean = "no figure" if each["mean"] is None else f"{each['mean']:+.4g} on average"
        said.append(
            f"{each['held']} of {each['seeds']} seeds: {each['says']} "
            f"({each['figure']} of {each['than']} less that of {each['lower']}: {mean})"
        )
    return said


def picture(outcome: Sequence[Mapping[str, Any]], figures: Figures) -> bytes:
    """Return a PNG with a panel a figure: a dot a seed, a bar for the mean of each arm's."""
    names = list(dict.fromkeys(each["figure"] for each in outcome))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(_PANEL_IN[0] * columns, _PANEL_IN[1] * rows), layout="constrained")
        for axes, name in zip(
            drawn.subplots(rows, columns, squeeze=False).flat, names, strict=False
        ):
            arms = [arm for arm, seeds in figures.items() if any(name in f for f in seeds.values())]
            for place, arm in enumerate(arms):
                values = [f[name] for f in figures[arm].values() if name in f]
                axes.plot([place] * len(values), values, "o", color=TEAL, alpha=0.7, markersize=5)
                axes.plot([place - 0.25, place + 0.25], [np.mean(values)] * 2, color=AMBER)
            axes.set_title(name)
            axes.set_xticks(range(len(arms)), arms)
            axes.tick_params(axis="x", labelcolor=MUTED)
        for axes in drawn.axes[len(names) :]:
            axes.set_visible(False)
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
