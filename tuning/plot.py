"""Picture of a sweep: panels of dots, one a trial, with the mean and the spread between seeds."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_jobs.reporting.charts import AMBER, MUTED, STYLE, TEAL

_PANEL_IN = (4.8, 3.2)
_COLUMNS = 3


@dataclass(frozen=True)
class Dot:
    """A trial in a panel."""

    x: float
    """The value of a parameter, or the place of its label."""
    y: float
    """The figure."""
    ended: bool = True
    """False: stopped early."""
    best: bool = False


@dataclass(frozen=True)
class Panel:
    """A figure against a parameter or against arms."""

    x_label: str
    y_label: str
    dots: Sequence[Dot]
    labels: Sequence[str] | None = None
    """Of the places 0, 1, …; None where the horizontal axis is of numbers."""
    is_log: bool = False
    joined: bool = False
    """Whether the means at labelled places are joined by a line: there is an order."""


def png(panels: Sequence[Panel]) -> bytes:
    """Return the panels as a PNG, at most three beside each other.

    Trials that were stopped early are pale, and the best is ringed. At labelled places a bar is
    the mean of the trials that ended, and an upright line reaches from the least to the greatest.
    """
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (_PANEL_IN[0] * columns, _PANEL_IN[1] * rows)
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained", dpi=130)
        places = figure.subplots(rows, columns, squeeze=False).flat
        for axes, panel in zip(places, panels, strict=False):
            _draw(axes, panel)
        for axes in figure.axes[len(panels) :]:
            axes.set_visible(False)
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def spread(dots: Sequence[Dot]) -> list[tuple[float, float, float, float]]:
    """Return for each place of ended trials: the place, their least, mean and greatest figure."""
    heights: dict[float, list[float]] = {}
    for dot in dots:
        if dot.ended:
            heights.setdefault(dot.x, []).append(dot.y)
    return [(x, min(ys), float(np.mean(ys)), max(ys)) for x, ys in sorted(heights.items())]


def _draw(axes: Axes, panel: Panel) -> None:
    if panel.labels is not None:
        axes.set_xticks(range(len(panel.labels)), panel.labels)
        axes.set_xlim(-0.5, len(panel.labels) - 0.5)
        found = spread(panel.dots)
        for x, least, mean, greatest in found:
            axes.plot([x, x], [least, greatest], color=TEAL, alpha=0.5, linewidth=1)
            axes.plot([x - 0.2, x + 0.2], [mean, mean], color=TEAL)
        if panel.joined:
            axes.plot([x for x, *_ in found], [each[2] for each in found], color=TEAL, alpha=0.5)
    elif panel.is_log:
        axes.set_xscale("log")
    _scatter(axes, [dot for dot in panel.dots if dot.ended], color=TEAL, s=22, zorder=3)
    early = [dot for dot in panel.dots if not dot.ended]
    _scatter(axes, early, color=MUTED, alpha=0.35, s=16, zorder=2)
    ring = {"facecolors": "none", "edgecolors": AMBER, "linewidths": 2}
    _scatter(axes, [dot for dot in panel.dots if dot.best], s=110, zorder=4, **ring)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)


def _scatter(axes: Axes, dots: Sequence[Dot], **style: object) -> None:
    axes.scatter([dot.x for dot in dots], [dot.y for dot in dots], **style)  # pyright: ignore[reportArgumentType]
