"""Charts of the report: matplotlib figures in one quiet style, as inline SVG or as PNG bytes.

Every chart is drawn at the width of one tile (about half the page), so that it is still legible
when a narrow screen stacks the tiles. Figures are built without pyplot: no global state, safe in
threads, and no display is needed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, GRID = "#1d2733", "#5d6b7a", "#e3e6ea"
TEAL, AMBER, PLUM, BRICK, SLATE = "#14746f", "#c77d18", "#7b4b94", "#b23a2e", "#4a6fa5"
SERIES = (TEAL, AMBER, PLUM, SLATE, BRICK)
TILE_IN = (5.4, 2.75)
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "svg.fonttype": "none",
    "axes.edgecolor": "#b9c0c8",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 9.0,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "text.color": INK,
}


@dataclass(frozen=True)
class Line:
    """One line of a chart; `x` and `y` are equally long, and a NaN in `y` leaves a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """What others do over the same axis: a line between the least and the most of them."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    middle: Sequence[float]
    high: Sequence[float]


def data_uri(data: bytes, media_type: str) -> str:
    """`data` as a data URI, the only kind of address that a self-contained page may hold."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    x_range: tuple[float, float] | None = None,
    from_zero: bool = False,
    band: Band | None = None,
) -> str:
    """Lines over a common x axis, as an SVG data URI.

    Args:
        lines: What to draw, in the order of the legend.
        title: What the chart shows.
        x_label: Name and unit of the x axis.
        y_label: Name and unit of the y axis.
        level: A baseline (label, y) drawn as a horizontal line.
        marks: Vertical lines (x, label): stage boundaries, joins. A label may be empty.
        x_range: First and last x of the axis; None fits the lines.
        from_zero: Whether the y axis starts at 0, for figures whose ratio matters.
        band: What the lines are to be held against, drawn behind them.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=TILE_IN, layout="constrained")
        axes = figure.add_subplot()
        _draw_lines(axes, lines, title, x_label, y_label, level, marks, x_range, from_zero, band)
        _legend(axes, len(lines) + (level is not None) + (band is not None))
        return _svg(figure)


def histogram(
    groups: Mapping[str, np.ndarray],
    *,
    title: str,
    x_label: str,
    thresholds: Sequence[float] = (),
    bins: int = 32,
) -> str:
    """Stacked histogram of score groups with thresholds as vertical lines, as an SVG data URI."""
    groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
    groups = {name: values for name, values in groups.items() if values.size}
    every = np.concatenate([*groups.values(), np.asarray(thresholds, dtype=np.float64)])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=TILE_IN, layout="constrained")
        axes = figure.add_subplot()
        low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
        if low == high:  # one value only: show it in the middle
            low, high = low - 0.1 * max(1.0, abs(low)), high + 0.1 * max(1.0, abs(high))
        edges = np.linspace(low, high, bins + 1)
        colours = {"kept": TEAL, "filtered": AMBER}
        axes.hist(
            list(groups.values()),
            bins=list(edges),
            stacked=True,
            label=list(groups),
            color=[colours.get(name, SLATE) for name in groups],
            edgecolor="white",
            linewidth=0.6,
        )
        axes.set(title=title, xlabel=x_label, ylabel="clips")
        _marks(axes, [(value, f"limit {value:g}") for value in thresholds], BRICK)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.18)  # room for the names of the limits
        _legend(axes, len(groups))
        return _svg(figure)


def bars(values: Mapping[str, float], *, title: str, x_label: str) -> str:
    """Horizontal bars, first entry on top, each with its value written out, as an SVG data URI."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(TILE_IN[0], 0.9 + 0.36 * len(values)), layout="constrained")
        axes = figure.add_subplot()
        names = list(values)
        drawn = axes.barh(names, [values[name] for name in names], color=TEAL, height=0.62)
        axes.bar_label(drawn, [f"{values[n]:,.1f}" for n in names], padding=4, color=INK, size=9)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set(title=title, xlabel=x_label)
        return _svg(figure)


def panel_png(panels: Sequence[Mapping[str, Any]], *, heading: str) -> bytes:
    """Several line charts of the same lines (the arguments of `line_chart`) as one PNG."""
    rows = (len(panels) + 1) // 2
    with matplotlib.rc_context(STYLE):
        size = (2 * TILE_IN[0], rows * TILE_IN[1] + 0.4)
        figure = Figure(figsize=size, dpi=144, layout="constrained")
        figure.suptitle(heading, fontsize=11, color=MUTED, x=0.01, ha="left")
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(rows, 2, index + 1)
            _draw_lines(
                axes,
                panel["lines"],
                panel["title"],
                panel["x_label"],
                panel["y_label"],
                panel.get("level"),
                panel.get("marks", ()),
                panel.get("x_range"),
                panel.get("from_zero", False),
                panel.get("band"),
            )
            if index == 0:  # the panels have the same lines
                _legend(axes, len(panel["lines"]) + (panel.get("band") is not None))
        return _render(figure, format="png", facecolor="white")


def _draw_lines(
    axes: Axes,
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    level: tuple[str, float] | None,
    marks: Sequence[tuple[float, str]],
    x_range: tuple[float, float] | None,
    from_zero: bool,
    band: Band | None = None,
) -> None:
    if band is not None:
        axes.fill_between(band.x, band.low, band.high, color=MUTED, alpha=0.15, linewidth=0)
        axes.plot(band.x, band.middle, color=MUTED, linewidth=1.2, label=band.label)
    for index, line in enumerate(lines):
        few = len(line.x) <= 16
        axes.plot(
            line.x,
            line.y,
            label=line.label,
            color=SERIES[index % len(SERIES)],
            linestyle="--" if line.dashed else "-",
            marker="o" if few else None,
            markersize=3.4,
        )
    if level is not None:
        axes.axhline(level[1], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label=level[0])
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.margins(y=0.12)
    if x_range is not None:
        axes.set_xlim(*x_range)
    if from_zero:
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    _marks(axes, marks, MUTED)


def _marks(axes: Axes, marks: Sequence[tuple[float, str]], colour: str) -> None:
    for x, label in marks:
        axes.axvline(x, color=colour, linewidth=1.0, linestyle=(0, (2, 2)))
        if label:
            axes.annotate(
                label,
                (x, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                size=8,
                color=colour,
            )


def _legend(axes: Axes, entries: int) -> None:
    """Name the lines below the axes, where the legend hides no data."""
    figure = axes.get_figure()
    if entries > 1 and isinstance(figure, Figure):
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", ncols=3, handlelength=1.5, columnspacing=1.2
        )


def _svg(figure: Figure) -> str:
    drawn = _render(figure, format="svg", transparent=True, metadata={"Date": None})
    return data_uri(drawn.replace(b"'DejaVu Sans'", _FONTS.encode()), "image/svg+xml")


def _render(figure: Figure, **how: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **how)
    return buffer.getvalue()
