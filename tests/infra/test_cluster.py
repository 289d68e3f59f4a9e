"""Ray that can't be had is one line, not a trace."""

import os
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from infra import cluster
from infra.errors import UserError

SESSION = """
from infra import cluster
from infra.job import run_and_exit

def work():
    with cluster.session():
        print("up")

run_and_exit(work)
"""


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "nobody.invalid:6379"])
def test_an_address_where_nobody_listens(address: str):
    with pytest.raises(UserError, match=re.escape(f"Ray address {address}: ")):
        cluster._check_listens(address)


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:1"])
def test_other_addresses_are_left_to_ray(address: str):
    cluster._check_listens(address)


def test_an_address_where_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster._check_listens(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_session_that_cannot_begin(tmp_path: Path):
    (tmp_path / "a_file").touch()
    environment = {**os.environ, "RAY_ADDRESS": "", "RAY_TMPDIR": str(tmp_path / "a_file")}
    command = [sys.executable, "-c", SESSION]
    done = subprocess.run(
        command, cwd=cluster.ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: Ray did not start: [Errno 20]")
    assert "Traceback" not in done.stderr


def test_a_slow_start_is_waited_for_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Ray's own attempts are played: what slows a real one is a machine that others keep busy."""
    patience: list[float] = []

    def init(**settings: object) -> None:
        if len(patience) < 3:
            raise Exception("The current node timed out during startup. This could happen …")

    def patient(seconds: float) -> nullcontext[None]:
        patience.append(seconds)
        return nullcontext()

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)  # other tests' session stays up
    monkeypatch.setattr(cluster, "_patient", patient)
    cluster._start(None)
    assert patience == list(cluster.START_PATIENCE_S)
    assert patience == sorted(patience)
    lines = capsys.readouterr().err.splitlines()
    assert [line[-8:] for line in lines] == ["(2 of 3)", "(3 of 3)"]


def test_the_node_is_asked_for_until_patience_ends():
    from ray._private import services

    asked = []

    def not_there(*args: object) -> None:
        asked.append(args)
        if len(asked) < 3:
            raise RuntimeError("no such node yet")

    before = services.get_node
    services.get_node = not_there
    try:
        with cluster._patient(60):
            services.get_node("gcs", "node")
        assert len(asked) == 3
        asked.clear()
        with cluster._patient(0), pytest.raises(RuntimeError):
            services.get_node("gcs", "node")
        assert services.get_node is not_there
    finally:
        services.get_node = before
