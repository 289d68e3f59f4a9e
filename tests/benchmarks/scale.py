"""How jobs grow with the corpus, to ten million videos: ``python -m tests.benchmarks.scale``.

Corpora are generated, no film is read: `prepare` is given rows in place of its analysis. Storage is
a real S3 server behind a proxy that counts the requests of all processes; each job runs at each
size as a driver of its own, on one Ray session. A million videos take some hours on two cores.

- ``driver_bytes_per_video``: memory that each video adds to the driver, between the largest two
  sizes, in the worst phase. Target: at most 100.
- ``loader_start_requests``: of the four loaders of a rank, at the worst size. Target: at most 50.
- ``merge_requests_per_video``: of `prepare` once all parts are there, at the largest size; smaller
  corpora are cut into smaller parts on purpose. Target: at most 0.1.
- ``growth_exponent``: of seconds and requests over videos, between the largest two sizes, in the
  worst phase. Target: at most 1.05.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ray

from infra import cluster, storage
from tests.benchmarks.report import report
from tests.benchmarks.scaling import corpus, growth, shard_corpus
from tests.benchmarks.scaling.counting_proxy import serve
from tests.benchmarks.scaling.jobs import JOBS, MANIFEST, WITHOUT_RAY
from tests.benchmarks.scaling.meter import Measurement
from tests.s3 import Server

ROOT = Path(__file__).parents[2]
BUCKET = "scale"
PLAIN_MEMORY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""Lets allocators give back at once what is free: else they keep some 20 MB, now and then more,
which between small sizes looks like hundreds of bytes a video."""
TARGETS = {
    "driver_bytes_per_video": "<= 100",
    "loader_start_requests": "<= 50",
    "merge_requests_per_video": "<= 0.1",
    "growth_exponent": "<= 1.05",
}


def measure_size(videos: int, proxy: str, temporary: Path) -> list[Measurement]:
    """Run every job over a corpus of so many videos, and return what they took."""
    folder = f"s3://{BUCKET}/{videos}"
    corpus.write_manifest(f"{folder}/{MANIFEST}", videos)
    shard_corpus.write_shards(f"{folder}/shards", videos)
    found: list[Measurement] = []
    for name in JOBS:
        command = [sys.executable, "-m", "tests.benchmarks.scaling.jobs", name, str(videos)]
        local = temporary / f"{videos}-{name}"
        local.mkdir()
        fresh = {"TMPDIR": str(local)} if name in WITHOUT_RAY else {}  # a node without the index
        done = subprocess.run(
            [*command, folder, proxy],
            cwd=ROOT,
            env={**os.environ, **PLAIN_MEMORY, **fresh},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        new = [Measurement(**tree) for tree in json.loads(done.stdout.splitlines()[-1])]
        found += new
        print("\n".join(map(growth.row, new)), flush=True)
    storage.remove(folder)
    return found


def ratios(phases: dict[str, list[Measurement]]) -> dict[str, float]:
    """Return the ratios of the module's docstring."""
    of = growth.QUANTITIES
    merge = phases["prepare: merge"][-1]
    return {
        "driver_bytes_per_video": max(
            growth.per_video(phase, of["driver_bytes"]) for phase in phases.values()
        ),
        "loader_start_requests": max(each.total_requests for each in phases["loader: start"]),
        "merge_requests_per_video": merge.total_requests / merge.videos,
        "growth_exponent": max(
            growth.exponent(phase, of[what])
            for phase in phases.values()
            for what in ("seconds", "requests")
        ),
    }


def measure(sizes: Sequence[int]) -> dict[str, list[Measurement]]:
    """Measure all jobs at all sizes on a server and a Ray session that end with it."""
    with tempfile.TemporaryDirectory(prefix="longtake-") as name:
        server = Server(Path(name, "server"), volumes=64)
        server.start()
        try:
            with serve(server.environment["AWS_ENDPOINT_URL"]) as proxy:
                os.environ.update({**server.environment, "AWS_ENDPOINT_URL": proxy})
                storage._open(f"s3://{BUCKET}")[0].mkdir(BUCKET)
                with cluster.session():
                    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
                    found = [m for n in sizes for m in measure_size(n, proxy, Path(name))]
        finally:
            server.kill()
    return growth.by_phase(found)


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--videos", default="10000,100000", help="sizes of the corpora, rising, at least two"
    )
    args = parser.parse_args()
    sizes = [int(size) for size in args.videos.split(",")]
    if len(sizes) < 2 or sizes != sorted(set(sizes)):
        parser.error(f"--videos: {args.videos}; give two sizes or more, rising")
    print(growth.HEAD, flush=True)
    phases = measure(sizes)
    print("\n".join(["", *growth.table(phases)]))
    print(f"limits at {growth.FULL:,} videos: {100 * growth.FULL / 1e6:,.0f} MB on the driver, "
          f"{growth.FULL / 10:,.0f} requests to merge, 50 to start a loader")  # fmt: skip
    report("scale", ratios(phases), TARGETS)


if __name__ == "__main__":
    main()
