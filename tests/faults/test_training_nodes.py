"""Training whose node is lost ends the same to the bit, once another node joins."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.faults.test_training import assert_same
from tests.ray_jobs.training import runs
from tests.s3 import free_ports

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
WORKERS, ZERO = 2, 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that gives no CPU, and two nodes of one each."""
    quiet = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": free_ports(1)[0]}
    cluster = Cluster(initialize_head=True, head_node_args=quiet)
    for _ in range(WORKERS):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def start(cluster: Cluster, data: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.ray_jobs.training.runs", "autoregressive",
               json.dumps(data), str(output), str(WORKERS), str(ZERO)]  # fmt: skip
    with output.with_suffix(".log").open("ab") as log:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def log_tail(output: Path) -> str:
    return output.with_suffix(".log").read_text(errors="replace")[-4000:]


def test_a_lost_node(cluster: Cluster, tmp_path: Path):
    data = runs.write_data(tmp_path)
    straight, output = tmp_path / "straight", tmp_path / "out"
    assert start(cluster, data, straight).wait() == 0, log_tail(straight)
    driver = start(cluster, data, output)
    while not list(output.glob("checkpoints/*/train_state.json")):
        assert driver.poll() is None, log_tail(output)
        time.sleep(0.05)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert not (output / "model.safetensors").exists()
    cluster.add_node(num_cpus=1)
    assert driver.wait() == 0, log_tail(output)
    assert_same(output, straight)
