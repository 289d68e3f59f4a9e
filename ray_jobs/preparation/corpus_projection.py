"""Projection of a corpus from a sample: before the work, and held against it afterwards."""

import math
import os
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import manifest, projection
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.projection import ProjectionConfig
from data_prep.schemas import CLIP_TABLE
from infra import storage
from infra.config import Resources
from infra.progress import Progress
from ray_jobs.units import Parts

SAMPLED = "sampled.json"


def project(
    inputs: tuple[str, ...],
    analysis: AnalysisConfig,
    config: ProjectionConfig,
    resources: Resources,
    seed: int,
) -> list[str]:
    """Analyse a sample of the videos here, and return in lines what all of them will take."""
    if not config.videos:
        return []
    sample = projection.Sample(config.videos, seed)
    for batch in manifest.stream(inputs, manifest.Counts()):
        slices = (batch.slice(n, 1) for n in range(batch.num_rows))
        sample.offer(batch["source_id"].to_pylist(), slices)
    begun_s = time.monotonic()
    sampled = []
    with Progress(len(sample.drawn), "sample", "videos") as progress:
        for drawn in sample.drawn:
            if sampled and time.monotonic() - begun_s > config.seconds:
                break
            [row] = drawn.to_pylist()
            about = {name: row[name] for name in ("extra", "damage", "size_bytes")}
            sampled.append(_measured(analyse(row["uri"], row["caption"], analysis, **about)))
            progress.advance(1)
    totals = projection.project(sampled, sample.seen, seed)
    cpus = config.cpus or os.cpu_count() or 1
    each_cpus, gpus = resources.cpus_per_worker, resources.gpus_per_worker
    wall = projection.wall_hours(totals["cpu_hours"], cpus, each_cpus, sample.seen)
    lines = [
        (name.replace("_", " ").replace("cpu", "CPU").replace("gb", "GB"), total)
        for name, total in totals.items()
    ]
    lines.append((f"wall hours on {cpus:g} CPUs", wall))
    if gpus:  # a task holds its GPUs while it runs
        busy = totals["cpu_hours"]
        held = projection.Interval(busy.value * gpus, busy.low * gpus, busy.high * gpus)
        lines.append(("GPU hours", held))
    return [
        f"projected from {len(sampled)} of {sample.seen} videos, "
        f"with {projection.CONFIDENCE:.0%} intervals:",
        *(f"  {name}: {t.value:.4g} ({t.low:.4g} to {t.high:.4g})" for name, t in lines),
    ]


def measure_sample(
    parts: Parts, units_uri: str, places: Sequence[Sequence[int]]
) -> list[dict[str, float]]:
    """Return what the sampled rows of the clip table came to, as analysed; remembered with units.

    Args:
        parts: of the table, before copies are looked for.
        units_uri: of the table of inputs.
        places: part and row of each.
    """
    file = storage.join(units_uri, SAMPLED)
    if not storage.exists(file):
        storage.write_json(file, [_measured(_row(parts.uri(part), n)) for part, n in places])
    return storage.read_json(file)


def compare(
    sampled: Sequence[dict[str, float]], summary: dict[str, Any], parts: Parts, seed: int
) -> dict[str, Any]:
    """Return what a sample says of the corpus, beside what came of it."""
    if not sampled:
        return {}
    table = storage.join(parts.output_uri, parts.folder)
    actual = {
        "cpu_hours": summary["cpu_seconds"] / 3600,
        "source_hours": summary["source_seconds"] / 3600,
        "output_gb": sum(size for _, size in storage.walk(table)) / 1e9,
        "kept_videos": summary["kept"],
        "kept_clips": summary["clips"],
    }
    totals = projection.project(sampled, summary["inputs"], seed)
    return {
        "projection": {
            "videos": len(sampled),
            **{
                name: {
                    "projected": total.value,
                    "low": total.low,
                    "high": total.high if math.isfinite(total.high) else None,
                    "actual": actual[name],
                    "error": total.value / actual[name] - 1 if actual[name] else None,
                }
                for name, total in totals.items()
            },
        }
    }


def _measured(row: dict[str, Any]) -> dict[str, float]:
    return projection.measures(row, pa.Table.from_pylist([row], CLIP_TABLE).nbytes)


def _row(uri: str, number: int) -> dict[str, Any]:
    with storage.open_input(uri) as file:
        return pq.read_table(file).slice(number, 1).to_pylist()[0]
