"""Measure videos: how they move and drift over time, one row a video.

input: finished artifacts of kind `videos`, directories of films, or manifests of them, so that
generated videos and held-out film are measured alike. output: `measures.parquet`, one row a video,
and `metrics.json`, their means. A metric that needs weights which were not given is named as not
measured and never has a number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from infra import storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import Job, main
from models.evaluation import likeness
from models.evaluation.likeness import Range
from ray_jobs import unit_tables, units, video_table
from ray_jobs.evaluation import sources
from ray_jobs.evaluation.measure import SCALES, MeasureConfig, measure
from ray_jobs.evaluation.measures_table import FIGURES, FILE, SCHEMA, as_columns
from ray_jobs.evaluation.sources import FILM
from ray_jobs.part_files import write_tables
from ray_jobs.units import Factory, Parts, Receipt

METRICS_VERSION = 3
NOT_MEASURED = ("FVD (needs I3D or VideoMAE weights)", "CLIPSIM (needs CLIP weights)")
UNITS, MEASURED, METRICS = "units", "measured", "metrics.json"
FILM_DISTANCE = "film_distance"


class EvaluateConfig(JobConfig):
    """Settings of `evaluate`."""

    measure: MeasureConfig = MeasureConfig()
    """How each video is measured."""
    videos_per_part: Annotated[int, Field(ge=1)] = 1
    """Videos that a lost worker measures anew at most; more of them make fewer files."""


def plan(config: EvaluateConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    lines = []
    for source in sources.sources(config.input):
        count = video_table.count(source.uri) if source.fingerprint is not None else None
        lines.append(
            f"measure {'the films' if count is None else f'{count} videos'} of {source.uri}"
        )
    return [*lines, f"one curve point every {config.measure.window_s:g} s"]


def run(config: EvaluateConfig, output: Output) -> dict[str, Any]:
    """Measure the videos that are missing, then write the table; returns the summary."""
    if not storage.exists(output.path(METRICS)):
        parts, factory = work_of(config, output)
        for _ in units.run(parts, factory, config.resources):
            pass
        planned = unit_tables.plan_of(output.path(UNITS))
        assert planned is not None, "there are parts"
        metrics = {
            "version": METRICS_VERSION,
            **_merge(parts, output),
            "conventions": {"scales": SCALES, **config.measure.model_dump(mode="json")},
            "not_measured": NOT_MEASURED,
            "sources": planned.facts["sources"],
        }
        storage.write_json(output.path(METRICS), metrics)
    for folder in (MEASURED, UNITS):  # measures.parquet has it all
        storage.remove(output.path(folder))
    metrics = storage.read_json(output.path(METRICS))
    return {name: metrics[name] for name in ("videos", "unreadable_videos", "figures")}


def work_of(config: EvaluateConfig, output: Output) -> tuple[Parts, Factory]:
    """Return the parts of a run and how to build their workers; lists the videos at first."""
    units_uri = output.path(UNITS)
    planned = unit_tables.plan_of(units_uri) or _plan_parts(config, units_uri)
    parts = Parts(output.uri, MEASURED, planned.parts, unit="parts")
    arguments = {"units_uri": units_uri, "parts": parts, "config": config.measure}
    return parts, Factory(Measuring, arguments)


class Measuring:
    """Measures the videos of a part; a worker of :func:`ray_jobs.units.run`.

    Args:
        units_uri: of the table of films.
        parts: of the job.
        config: how to measure.
    """

    def __init__(self, units_uri: str, parts: Parts, config: MeasureConfig) -> None:
        self._read = unit_tables.Reader(units_uri)
        self._parts, self._config = parts, config

    def __call__(self, part: int) -> Receipt:
        """Write the rows of a part's videos."""
        films = map(video_table.from_columns, self._read(part).to_pylist())
        records = [measure(sources.uri_of(film), film, self._config) for film in films]
        write_tables(self._parts.uri(part), SCHEMA, [as_columns(records)])
        return {"rows": len(records), "failed": sum(r["problem"] is not None for r in records)}


def figures_of(uri: str, of_film: Mapping[str, Range] | None = None) -> dict[str, float]:
    """Return what sweeps and ablations compare, means over the videos of an artifact.

    The figures of `measures_table`, those that were measured, and ``film_distance``: by how many
    steps a video's worst figure is from the middle of film's range
    (:func:`models.evaluation.likeness.distance`).

    Args:
        uri: a finished artifact of kind ``videos``.
        of_film: the ranges of film (:func:`ray_jobs.evaluation.reference.ranges_of`); None: wide
            ones, of film as such.

    Raises:
        UserError: a video cannot be read, or has a single frame.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for row in video_table.read(uri):
        record = measure(video_table.film_uri(uri, row), {**row, "source": uri}, MeasureConfig())
        if record["problem"] is not None or record["motion"] is None:
            raise UserError(f"{row['file']}: {record['problem'] or 'a single frame'}")
        for name in FIGURES:
            if record[name] is not None:
                found[name].append(record[name])
        found[FILM_DISTANCE].append(likeness.distance(record, of_film or likeness.film()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _plan_parts(config: EvaluateConfig, units_uri: str) -> unit_tables.Plan:
    """Write the films of all inputs as a unit table."""
    said = []
    with unit_tables.Writer(units_uri, FILM) as writer:
        for source in sources.sources(config.input):
            films, count = source.films(), 0
            while some := list(islice(films, config.videos_per_part)):
                rows = [video_table.as_columns(film) for film in some]
                writer.add(pa.Table.from_pylist(rows, FILM))
                count += len(some)
            if not count:
                raise UserError(f"input {source.uri}: holds no video")
            said.append(sources.as_json(source, count))
        writer.facts["sources"] = said
    made = unit_tables.plan_of(units_uri)
    assert made is not None, "the writer has written its plan"
    return made


def _merge(parts: Parts, output: Output) -> dict[str, Any]:
    """Write the table from the parts and return the means of its figures."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)

    def tables() -> Iterator[pa.Table]:
        for part in range(parts.count):
            with storage.open_input(parts.uri(part)) as file:
                table = pq.ParquetFile(file).read()
            counts["videos"] += table.num_rows
            counts["problem"] += table.num_rows - table["problem"].null_count
            for name in FIGURES:
                values = table[name].drop_null().to_pylist()
                sums[name] += sum(values)
                counts[name] += len(values)
            yield table

    write_tables(output.path(FILE), SCHEMA, tables())
    return {
        "videos": counts["videos"],
        "unreadable_videos": counts["problem"],
        "figures": {
            name: {"mean": sums[name] / counts[name], "videos": counts[name]}
            for name in FIGURES
            if counts[name]
        },
    }


JOB = Job("evaluate", "measures", EvaluateConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
