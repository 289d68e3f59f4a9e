"""What preparing costs beside a bare decord pass: ``python -m tests.benchmarks.prepare``.

Both sides run in turn on the same file, so that a change of the machine's speed meets both.

- ``analysis_to_decode``: CPU-seconds of the whole analysis of a film (decode, cuts, all scores,
  hashes, thumbnails; every process counted) over those of a bare pass at 256 pixels; the middle
  one of several rounds. Target: at most 1.5.
- ``prepare_to_decode``: wall time of the job on all cores, in a running Ray session, over that of
  bare passes over the same files with one process a core. Target: at most 1.8.
"""

import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from data_prep import samples
from data_prep.analysis import LONG_SIDE_PX, AnalysisConfig, analyse
from infra import cluster
from infra.config import build
from infra.job import execute
from ray_jobs import prepare
from tests.benchmarks.report import report


def bare_pass(path: str) -> float:
    """Decode every frame with decord, scaled as the analysis has it; return CPU-seconds."""
    import decord

    begun = _cpu_s()
    height, width, _ = decord.VideoReader(path, num_threads=1)[0].shape
    scale = LONG_SIDE_PX / max(width, height)
    reader = decord.VideoReader(
        path, width=round(width * scale), height=round(height * scale), num_threads=1
    )
    for _ in range(len(reader)):
        reader.next()
    return _cpu_s() - begun


def whole_analysis(path: str) -> float:
    """Analyse one film; return the CPU-seconds of this process and the decoding child."""
    return analyse(path, None, AnalysisConfig())["cpu_seconds"]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1)


def compare_analysis(film: str, rounds: int) -> float:
    """Return the middle ratio of analysis to bare pass over `rounds`, each in fresh processes."""
    ratios = []
    for number in range(rounds):
        with _pool(1) as pool:
            bare = pool.submit(bare_pass, film).result()
            whole = pool.submit(whole_analysis, film).result()
        ratios.append(whole / bare)
        print(f"round {number + 1}: bare pass {bare:.1f}, analysis {whole:.1f} CPU-seconds")
    return statistics.median(ratios)


def compare_prepare(film: str, workers: int) -> float:
    """Return the ratio of wall times over one copy of the film for each of `workers` cores."""
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder, cluster.session():
        films = Path(folder, "films")
        films.mkdir()
        for number in range(workers):
            shutil.copy(film, films / f"{number}{Path(film).suffix}")
        tree = {"input": [str(films)], "output": f"{folder}/out"}
        begun = time.monotonic()
        execute(prepare.JOB, build(prepare.PrepareConfig, tree))
        ours = time.monotonic() - begun
        begun = time.monotonic()
        with _pool(workers) as pool:
            list(pool.map(bare_pass, [str(path) for path in sorted(films.iterdir())]))
        bare = time.monotonic() - begun
    print(f"{workers} films on {workers} cores: bare passes {bare:.1f} s, prepare {ours:.1f} s")
    return ours / bare


def main() -> None:
    """Measure both ratios and report them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--film", help="a video file (default: the demo's film)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    film = args.film or str(samples.big_buck_bunny())
    analysis = compare_analysis(film, args.rounds)
    whole = compare_prepare(film, len(os.sched_getaffinity(0)))
    report(
        "prepare",
        {"analysis_to_decode": analysis, "prepare_to_decode": whole},
        {"analysis_to_decode": "<= 1.5", "prepare_to_decode": "<= 1.8"},
    )


if __name__ == "__main__":
    main()
