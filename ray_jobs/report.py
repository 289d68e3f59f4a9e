"""Draw a report of finished artifacts: one HTML page, and curves over time as PNG.

input: finished artifacts of the kinds clips, pixels, tokens, tokenizer, autoregressive and videos,
in any order, at most one of each, and any number of kind measures, which are set side by side. The
page has a section for each that is given. output: `report.html`, `headline.json` and `curves/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from infra import storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.job import Job, main
from ray_jobs import video_table
from ray_jobs.evaluation import measures_table, reference
from ray_jobs.evaluation.measure import describe
from ray_jobs.evaluation.measures_table import Record
from ray_jobs.evaluation.sources import uri_of
from ray_jobs.reporting import build, charts, film_verdicts, generated, headline
from ray_jobs.reporting.inputs import Inputs, read_all

MOST_FILM = 64
"""Held-out clips whose figures are film's ranges and lines in the curves."""


class ReportConfig(JobConfig):
    """Settings of `report`."""

    title: Annotated[str, Field(min_length=1, max_length=120)] = "From film to generated video"
    """Heading of the report."""
    credits: tuple[str, ...] = ()
    """Lines of credit for the films used, shown at the end of the report."""
    thumbnails_per_group: Annotated[int, Field(ge=1)] = 36
    """Clips shown of the kept and of each reason of rejection, evenly spaced."""
    max_videos: Annotated[int, Field(ge=1)] = 24
    """Generated videos shown and drawn; measures.parquet has all."""
    max_video_mib: Annotated[float, Field(ge=0)] = 32.0
    """Largest video put into the page; a larger one becomes a link."""
    max_page_mib: Annotated[float, Field(ge=0)] = 96.0
    """Most MiB of video put into the page altogether."""


def plan(config: ReportConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    lines = [f"read {artifact.info.kind} {artifact.uri}" for artifact in read_all(config.input).all]
    return [*lines, "write report.html, headline.json and curves/*.png"]


def run(config: ReportConfig, output: Output) -> dict[str, Any]:
    """Write curves, headline figures and the page; returns the summary."""
    inputs = read_all(config.input)
    shown = list(islice(_generated(inputs), config.max_videos))
    film = _film(inputs)
    beside = generated.reference_curves(film)
    for video in shown:
        if panels := generated.panels(video, beside):
            heading = f"{video['file']}, {video['frames']} frames at {video['fps']:g} fps"
            png = charts.panel_png(panels, heading=heading)
            storage.write_bytes(output.path("curves", f"{video['video_id']}.png"), png)
    ranges = reference.ranges(inputs.of_film.uri, film) if inputs.of_film else None
    figures = [
        *headline.figures(inputs.by_kind),
        *film_verdicts.figures(_measured(inputs), ranges),
    ]
    page = build.build(
        inputs,
        shown,
        figures,
        film,
        title=config.title,
        credits=config.credits,
        thumbnails_per_group=config.thumbnails_per_group,
        max_video_mib=config.max_video_mib,
        max_page_mib=config.max_page_mib,
    )
    storage.write_text(output.path("report.html"), page)
    storage.write_json(output.path("headline.json"), [asdict(figure) for figure in figures])
    return {
        "artifacts": len(inputs.all),
        "videos_shown": len(shown),
        "report_bytes": len(page.encode()),
        "headline": {figure.name: figure.verdict for figure in figures},
    }


def _generated(inputs: Inputs) -> Iterator[Record]:
    """Yield the records of the generated videos; where none was measured, what is known of each."""
    made = inputs.by_kind.get("videos")
    for measures in inputs.of_generated:
        sources = measures.metrics()["sources"]
        for record in measures_table.read(measures.uri):
            moved = made is not None and len(sources) == 1  # the same artifact, perhaps elsewhere
            yield _placed({**record, "source": made.uri} if moved and made else record)
    if made is not None and not inputs.of_generated:
        for row in video_table.read(made.uri):
            yield _placed(describe({**row, "source": made.uri}))


def _placed(record: Record) -> Record:
    return {**record, "uri": uri_of(record)}


def _measured(inputs: Inputs) -> Iterator[Record]:
    """Yield what was measured of every generated video."""
    for measures in inputs.of_generated:
        yield from measures_table.read(measures.uri, strips=False)


def _film(inputs: Inputs) -> list[Record]:
    """Return the records of the film that the videos are held against, some of many."""
    if inputs.of_film is None:
        return []
    records = islice(measures_table.read(inputs.of_film.uri), MOST_FILM)
    return [_placed(record) for record in records]


JOB = Job("report", "report", ReportConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
