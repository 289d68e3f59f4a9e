"""Files of a finished sweep: the table of trials, the best config, the picture."""

from collections.abc import Sequence, Set
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from infra import config as configs
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig
from tuning import plot
from tuning.config import SweepConfig
from tuning.plot import Dot, Panel
from tuning.space import ARM, SEED, Parameter, Point

Row = dict[str, Any]
"""A record of a trial (:class:`tuning.records.Record`) as a plain tree."""
_SHOWN = 12


def write(config: SweepConfig, output: Output, records: Sequence[Row], best: Set[str]) -> None:
    """Write ``trials.parquet`` and ``response.png``.

    Args:
        config: of the sweep.
        output: of the sweep.
        records: of all trials.
        best: names of the best ones.
    """
    with storage.open_output(output.path("trials.parquet")) as file:
        pq.write_table(_table(config, records), file)
    storage.write_bytes(output.path("response.png"), plot.png(panels(config, records, best)))


def _table(config: SweepConfig, records: Sequence[Row]) -> pa.Table:
    """Return one row a trial: what it is, a column for each parameter and for each figure."""
    names = sorted({name for record in records for name in record["figures"]})
    columns: dict[str, list[Any]] = {
        "trial": [record["name"] for record in records],
        **({"arm": [record["point"][ARM] for record in records]} if config.arms else {}),
        "seed": [record["point"].get(SEED, config.seed) for record in records],
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
            [float(v) for v in values] if numbers else [_text(v) for v in values]
        )
    for name in names:
        columns[f"figure.{name}"] = [record["figures"].get(name) for record in records]
    metadata = {"longtake.objective": config.objective, "longtake.mode": config.mode}
    return pa.table(columns).replace_schema_metadata(metadata)


def best_yaml(
    config: SweepConfig, settled: JobConfig, trial: str, point: Point, objective: float
) -> str:
    """Return the best trial's config, complete but for the output, as the job takes it.

    Args:
        config: of the sweep.
        settled: the trial's config.
        trial: its name; with seeds, that of the first.
        point: its values.
        objective: what it came to; with seeds, their mean.
    """
    tree = configs.as_tree(settled)
    del tree["output"]
    stated = ", ".join(f"{name}={_text(value)}" for name, value in point.items())
    over = f", mean of {len(config.seeds)} seeds" if config.seeds else ""
    head = (
        f"# the {config.mode} of {config.objective}, {objective:.6g}{over}: {stated}\n"
        f"# trial {trial}; add output=…\n"
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
    names = [*([ARM] if config.arms else config.space), *([SEED] if config.seeds else [])]
    rows = [["", *names, config.objective, "steps", "seconds", "state"]]
    for place, record in enumerate(ranked[:_SHOWN]):
        objective = record["objective"]
        rows.append(
            [
                "*" if place == 0 and record["state"] == "finished" else "",
                *(_text(record["point"][name]) for name in names),
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


def panels(config: SweepConfig, records: Sequence[Row], best: Set[str]) -> list[Panel]:
    """Return what to draw: the objective against each parameter, or figures against arms.

    Those are the objective and the figures of the predictions. Trials that failed are left out.

    Args:
        config: of the sweep.
        records: of all trials.
        best: names of the best ones.
    """
    if config.arms:
        arms = list(config.arms)
        names = dict.fromkeys([config.objective, *(each.figure for each in config.predictions)])
        return [
            Panel(
                "",
                name,
                [
                    _dot(record, arms.index(record["point"][ARM]), record["figures"][name], best)
                    for record in records
                    if name in record["figures"]
                ],
                arms,
            )
            for name in names
        ]
    shown = [record for record in records if record["objective"] is not None]
    return [
        Panel(
            name,
            config.objective,
            [
                _dot(record, _place(parameter, record["point"][name]), record["objective"], best)
                for record in shown
            ],
            None if parameter.grid is None else [_text(value) for value in parameter.grid],
            is_log=parameter.log is not None,
            joined=True,
        )
        for name, parameter in config.space.items()
    ]


def _dot(record: Row, x: float, y: float, best: Set[str]) -> Dot:
    return Dot(x, y, ended=record["state"] == "finished", best=record["name"] in best)


def _place(parameter: Parameter, value: Any) -> float:
    """Return where a value is drawn: those of a grid, which may be words, at even distances."""
    return value if parameter.grid is None else parameter.grid.index(value)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
