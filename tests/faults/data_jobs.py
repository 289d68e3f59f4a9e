"""One driver that prepares a corpus and makes pixel and token shards of it.

`python -m tests.faults.data_jobs ADDRESS VIDEOS TOKENIZER OUTPUT` goes on with what is at OUTPUT.
"""

import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from infra import artifact, cluster, storage
from infra.config import JobConfig, build
from infra.job import Job, execute, run_and_exit
from models import exports
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer
from ray_jobs import frames as frames_job
from ray_jobs import prepare, tokenize

STEPS = ("prepare", "frames", "tokens")
MEASURED = ("cpu_seconds", "peak_rss_bytes")
PLACES = ("source_id", "uri")


def jobs(videos: str, tokenizer: str, output: str) -> list[tuple[Job[Any], JobConfig]]:
    """Return the jobs in order, with their configs."""
    small = {"duration": {"min_s": 1.0}, "resolution": {"min_short_side_px": 1}}
    kept: dict[str, Any] = {"input": [videos], "analysis": {"filters": small}}
    shape: dict[str, Any] = {
        "sizes": [{"height_px": 16, "width_px": 16}, {"height_px": 16, "width_px": 32}],
        "shard_mb": 0.001,  # a clip each
        "validation_share": 0.3,
    }
    frames = {"input": [f"{output}/prepare"], **shape}
    tokens: dict[str, Any] = {"input": [f"{output}/frames"], "codec": tokenizer}
    tokens["shard_mb"] = 0.001
    tokens["windows"] = [{"frames": 1, "stride": 8}, {"frames": 5, "stride": 5}]
    trees = dict(zip(STEPS, (kept, frames, tokens), strict=True))
    kinds = (prepare.JOB, frames_job.JOB, tokenize.JOB)
    return [
        (job, build(job.config, {**tree, "output": f"{output}/{name}"}))
        for job, (name, tree) in zip(kinds, trees.items(), strict=True)
    ]


def tokenizer_at(folder: Path) -> str:
    """Write a finished tokenizer that was never trained; return its URI."""
    codebook = CVQConfig(size=64, dim=8)
    model = TokenizerConfig(height_px=16, width_px=16, channels=8, groups=1, codebook=codebook)
    torch.manual_seed(0)
    settings = build(JobConfig, {"input": ["none"], "output": str(folder)})
    output = artifact.Output(settings.output, "0" * 16, artifact.State.NEW)
    exports.save(VideoTokenizer(model), folder)
    artifact.finish(output, "tokenizer", {}, time.monotonic())
    return output.uri


def committed(output: str) -> int:
    """Return how many parts are committed: of the clip table, then of both kinds of shards."""
    done = len(storage.list_files(f"{output}/prepare/clips"))
    shards = [storage.list_files(f"{output}/{name}/{name}") for name in STEPS[1:]]
    return done + sum(map(len, shards))


def outcome(output: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all tables, less what is measured and where files are."""
    found = {}
    for name, folder in zip(STEPS, ("clips", "frames", "tokens"), strict=True):
        rows = []
        for file in storage.list_files(f"{output}/{name}/{folder}"):
            with storage.open_input(file) as source:
                rows += pq.read_table(source).to_pylist()
        for row in rows:
            for column in (*MEASURED, *PLACES):
                row.pop(column, None)
        found[name] = rows if name == "prepare" else sorted(rows, key=lambda row: row["clip_id"])
    return found


def main(address: str, videos: str, tokenizer: str, output: str) -> None:
    """Run all jobs on the cluster at `address`."""
    with cluster.session(address):
        for job, settings in jobs(videos, tokenizer, output):
            execute(job, settings)


if __name__ == "__main__":
    run_and_exit(lambda: main(*sys.argv[1:]))
