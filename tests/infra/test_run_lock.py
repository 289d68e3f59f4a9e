"""One run at a time writes to an output; what a killed one leaves holds up nobody for long."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from infra import run_lock, storage
from infra.errors import UserError

HOLDS = """
import sys
from infra import run_lock
with run_lock.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = replace(run_lock._this_run(), place="another machine", host="node-7", process=4711)


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "out")
    request.getfixturevalue("fresh_s3")
    return f"{request.getfixturevalue('s3_bucket')}/lock/{tmp_path.name}"


@contextmanager
def other_process(output: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, output],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_other_run_is_named_and_a_killed_one_holds_up_nobody(
    output: str, caplog: pytest.LogCaptureFixture
) -> None:
    with other_process(output) as process:
        message = rf"^output {output}: another run writes there \(process {process.pid} on .*; wait"
        with pytest.raises(UserError, match=message), run_lock.held(output):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        caplog.set_level(logging.INFO)
        with run_lock.held(output):
            assert storage.exists(f"{output}/{run_lock.FILE}")
    assert "waiting" not in caplog.text
    assert not storage.exists(f"{output}/{run_lock.FILE}")


def test_a_run_of_another_machine_is_awaited(
    output: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_lock, "SILENT_S", 1.0)
    monkeypatch.setattr(run_lock, "_POLL_S", 0.1)
    file = f"{output}/{run_lock.FILE}"
    storage.write_json(file, asdict(ELSEWHERE))
    caplog.set_level(logging.INFO)
    with run_lock.held(output):
        assert "process 4711 on node-7" in caplog.text
    monkeypatch.setattr(run_lock, "SILENT_S", 600.0)
    storage.write_json(file, asdict(ELSEWHERE))
    beats = threading.Timer(0.3, storage.write_json, (file, asdict(replace(ELSEWHERE, beats=1))))
    beats.start()
    with pytest.raises(UserError, match="process 4711 on node-7"), run_lock.held(output):
        pass
    beats = threading.Timer(0.3, storage.remove, (file,))
    beats.start()
    with run_lock.held(output):
        pass


def test_two_that_began_at_once_do_not_both_end_well(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = f"{output}/{run_lock.FILE}"
    with pytest.raises(UserError, match=r"another run took it over .*4711"), run_lock.held(output):
        storage.write_json(file, asdict(ELSEWHERE))
    assert storage.read_json(file)["process"] == 4711


def test_a_run_gives_signs_of_life(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.05)
    file = f"{output}/{run_lock.FILE}"
    with run_lock.held(output):
        while storage.read_json(file)["beats"] < 2:
            pass


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"run": 3}', json.dumps({**asdict(ELSEWHERE), "process": "x"})]
)
def test_a_file_that_says_nothing_holds_nobody_up(tmp_path: Path, text: str) -> None:
    (tmp_path / run_lock.FILE).write_text(text)
    with run_lock.held(str(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_work_is_the_one_that_is_seen(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / run_lock.FILE).write_text(json.dumps(asdict(ELSEWHERE)))
        raise UserError("its own")

    with pytest.raises(UserError, match="its own"), run_lock.held(str(tmp_path)):
        work()
