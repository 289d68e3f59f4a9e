"""What a sweep leaves behind: a table of trials, the best config, and pictures of the response."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infra import config as configs
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig
from ray_jobs.reporting.charts import AMBER, MUTED, STYLE, TEAL
from tuning.config import SweepConfig
from tuning.space import Parameter

Row = dict[str, Any]
"""A record of a trial (:class:`tuning.records.Record`) as a plain tree."""
_SHOWN = 12


def write(config: SweepConfig, output: Output, records: Sequence[Row], best: Row) -> None:
    """Write ``trials.parquet`` and ``response.png``.

    Args:
        config: of the sweep.
        output: of the sweep.
        records: of all trials.
        best: one of them.
    """
    with storage.open_output(output.path("trials.parquet")) as file:
        pq.write_table(_table(config, records), file)
    picture = response(config.space, config.objective, records, best)
    storage.write_bytes(output.path("response.png"), picture)


def _table(config: SweepConfig, records: Sequence[Row]) -> pa.Table:
    """Return one row a trial: what it is, a column for each parameter and for each figure."""
    names = sorted({name for record in records for name in record["figures"]})
    columns: dict[str, list[Any]] = {
        "trial": [record["name"] for record in records],
        "state": [record["state"] for record in records],
        "objective": [record["objective"] for record in records],
        "steps": [record["steps"] for record in records],
        "seconds": [record["seconds"] for record in records],
        "error": [record["error"] or None for record in records],
    }
    for name in config.space:
        values = [record["point"][name] for record in records]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        columns[f"parameter.{name}"] = (
            [float(v) for v in values] if numbers else [_said(v) for v in values]
        )
    for name in names:
        columns[f"figure.{name}"] = [record["figures"].get(name) for record in records]
    metadata = {"longtake.objective": config.objective, "longtake.mode": config.mode}
    return pa.table(columns).replace_schema_metadata(metadata)


def best_yaml(config: SweepConfig, settled: JobConfig, best: Row) -> str:
    """Return the best trial's config, complete but for the output, as the job takes it."""
    tree = configs.as_tree(settled)
    del tree["output"]
    said = ", ".join(f"{name}={_said(value)}" for name, value in best["point"].items())
    head = (
        f"# the {config.mode} of {config.objective}, {best['objective']:.6g}: {said}\n"
        f"# trial {best['name']}; add output=…\n"
    )
    return head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def table_lines(config: SweepConfig, records: Sequence[Row]) -> list[str]:
    """Return the trials so far as a table for people, the best first; `*` is the best."""
    sign = 1 if config.mode == "min" else -1
    ranked = sorted(
        records,
        key=lambda r: (
            r["state"] != "finished",
            r["objective"] is None,
            sign * (r["objective"] or 0.0),
        ),
    )
    names = list(config.space)
    rows = [["", *names, config.objective, "steps", "seconds", "state"]]
    for place, record in enumerate(ranked[:_SHOWN]):
        objective = record["objective"]
        rows.append(
            [
                "*" if place == 0 and record["state"] == "finished" else "",
                *(_said(record["point"][name]) for name in names),
                "" if objective is None else f"{objective:.4f}",
                str(record["steps"]),
                f"{record['seconds']:.0f}",
                record["state"],
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{v:>{w}}" for v, w in zip(row, widths, strict=True)) for row in rows]
    more = [f"… and {len(ranked) - _SHOWN} more"] if len(ranked) > _SHOWN else []
    return [f"{len(records)} trials", *lines, *more]


def response(
    space: dict[str, Parameter], objective: str, records: Sequence[Row], best: Row
) -> bytes:
    """Return a PNG: the objective against each parameter, a dot a trial, the best ringed.

    Trials that were stopped early are pale, and those that failed are left out.
    """
    shown = [record for record in records if record["objective"] is not None]
    with rc_context(STYLE):
        figure = Figure(figsize=(5.0 * len(space), 3.6), layout="constrained", dpi=130)
        panels = figure.subplots(1, len(space), squeeze=False, sharey=True)[0]
        for panel, (name, parameter) in zip(panels, space.items(), strict=True):
            _panel(panel, name, parameter, shown, best)
        panels[0].set_ylabel(objective)
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def _panel(axes: Axes, name: str, parameter: Parameter, shown: Sequence[Row], best: Row) -> None:
    values = [record["point"][name] for record in shown]
    if parameter.grid is not None:  # evenly spaced: values may be words, or far apart
        places: list[Any] = [parameter.grid.index(value) for value in values]
        axes.set_xticks(range(len(parameter.grid)), [_said(value) for value in parameter.grid])
        axes.set_xlim(-0.5, len(parameter.grid) - 0.5)
        here = parameter.grid.index(best["point"][name])
    else:
        places, here = values, best["point"][name]
        if parameter.log is not None:
            axes.set_xscale("log")
    heights = np.array([record["objective"] for record in shown], float)
    ended = np.array([record["state"] == "finished" for record in shown], bool)
    at = np.array(places, float)
    axes.scatter(at[ended], heights[ended], color=TEAL, s=22, zorder=3)
    axes.scatter(at[~ended], heights[~ended], color=MUTED, alpha=0.35, s=16, zorder=2)
    if parameter.grid is not None and ended.any():
        means = [(p, heights[ended & (at == p)].mean()) for p in sorted(set(at[ended]))]
        axes.plot(*zip(*means, strict=True), color=TEAL, alpha=0.5)
    ring = {"facecolors": "none", "edgecolors": AMBER, "linewidths": 2}
    axes.scatter([here], [best["objective"]], s=110, zorder=4, **ring)
    axes.set_xlabel(name)


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
