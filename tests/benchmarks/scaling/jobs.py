"""Jobs under the meter, each in a process of its own, over a generated corpus.

`python -m tests.benchmarks.scaling.jobs JOB VIDEOS FOLDER PROXY` measures one and says on the last
line, as JSON, what its phases took. All jobs of a size share the FOLDER, and come in their order.
"""

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from infra import artifact, cluster, job, storage
from infra.config import build
from tests.benchmarks.scaling import corpus
from tests.benchmarks.scaling.meter import Meter

MANIFEST = "films.parquet"
BATCH, STEPS = 64, 200_000


def measure_prepare(folder: str, meter: Meter) -> None:
    """Plan, commit and merge a clip table of generated rows."""
    from ray_jobs import prepare

    settings = build(
        prepare.PrepareConfig,
        {"input": [f"{folder}/{MANIFEST}"], "output": f"{folder}/prepare"},
    )
    begun_at = time.monotonic()
    with meter.phase("prepare: plan"):
        output = artifact.begin("clips", settings)
        planned = prepare.plan_parts(settings, output)
    with meter.phase("prepare: commit"):
        prepare.analyse_parts(settings, output, planned, corpus.analyse)
    with meter.phase("prepare: merge"):
        summary = prepare.merge(settings, output, planned)
        artifact.finish(output, "clips", summary, begun_at)


def measure_select(folder: str, meter: Meter) -> None:
    """Judge the clip table under another threshold."""
    from ray_jobs import select

    tree: dict[str, Any] = {"filters": {"motion": {"min_score": 1.0}}}
    places = {"input": [f"{folder}/prepare"], "output": f"{folder}/select"}
    settings = build(select.SelectConfig, {**places, **tree})
    with meter.phase("select"):
        job.execute(select.JOB, settings)


def measure_tokenize(folder: str, meter: Meter) -> None:
    """Cut the clip table into parts of shards."""
    from data_prep.sampling import FrameSettings, WindowConfig
    from ray_jobs.sharding import plan
    from tests.benchmarks.scaling.shard_corpus import CODEC, SHARD_BYTES, WINDOWS

    windows = tuple(WindowConfig(frames=n, stride=n if n > 1 else 16) for n in WINDOWS)
    estimate = plan.Estimate(windows, CODEC)
    with meter.phase("tokenize: plan"):
        plan.of_clips(
            f"{folder}/tokenize", f"{folder}/prepare", FrameSettings(), estimate, SHARD_BYTES
        )


def measure_loader(folder: str, meter: Meter) -> None:
    """Start the four loaders of a rank of two stages, and read one batch."""
    from data_prep.loader import Loader, Mix

    stages = [[Mix(frames=17)], [Mix(frames=17), Mix(frames=65)]]
    with meter.phase("loader: start"):
        loaders = [
            Loader(f"{folder}/shards", split, mix, STEPS, BATCH, seed=0)
            for mix in stages
            for split in ("train", "validation")
        ]
    with meter.phase("loader: first batch"):
        loaders[0].batch(0)


JOBS = {
    "prepare": measure_prepare,
    "select": measure_select,
    "tokenize": measure_tokenize,
    "loader": measure_loader,
}
WITHOUT_RAY = ("loader",)


def main(name: str, videos: str, folder: str, proxy: str) -> None:
    """Measure a job here and print what was found."""
    storage.exists(folder)  # what the client of storage itself takes is not the job's
    if name in WITHOUT_RAY:
        meter = Meter(proxy, int(videos))
        JOBS[name](folder, meter)
    else:
        with cluster.session():
            meter = Meter(proxy, int(videos))
            JOBS[name](folder, meter)
    print(json.dumps([asdict(found) for found in meter.found]))


if __name__ == "__main__":
    main(*sys.argv[1:])
