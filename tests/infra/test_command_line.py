"""Exit codes: a user's mistake and an outage are told apart, each in one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from infra.command_line import TRY_AGAIN, describe, run_and_exit
from infra.config import Section
from infra.errors import Unavailable, UserError


def _exits(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    def work() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_and_exit(work)
    return caught.value.code, capsys.readouterr().err


def test_each_error_has_its_line_and_status(capsys) -> None:
    assert _exits(UserError("seed: 'x'"), capsys) == (2, "error: seed: 'x'\n")
    outage = (TRY_AGAIN, "error: s3://b: away; the same command resumes from here\n")
    assert _exits(Unavailable("s3://b: away"), capsys) == outage
    assert _exits(KeyboardInterrupt(), capsys)[0] == 130


class Inner(Section):
    name: str
    """Of it."""
    rates: tuple[float, ...] = (1.0, 2.0)


class Example(Section):
    needed: int
    inner: Inner
    made: dict[str, int] = Field(default_factory=dict)
    perhaps: Inner | None = None


def test_help_says_what_is_needed_and_what_else_is_taken() -> None:
    assert describe(Example) == [
        "  needed (required)",
        "  inner (required):",
        "  inner.name (required)  Of it.",
        "  inner.rates = [1.0, 2.0]",
        "  made = {}",
        "  perhaps:",
        "  perhaps.name (required)  Of it.",
        "  perhaps.rates = [1.0, 2.0]",
    ]


def test_an_outage_is_no_verdict() -> None:
    assert not issubclass(Unavailable, UserError | ValueError | OSError)


ROOT = Path(__file__).parents[2]
COMMANDS = (
    "ray_jobs.generate",
    "pipelines.loong",
    "tuning.top_k",
    "data_prep.samples.moving_shapes",
)
"""One of each package that has some."""


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_while_a_command_imports_is_one_line(command: str, tmp_path: Path) -> None:
    """In the place of pydantic, which all commands import, is a module that gets it."""
    interrupted = "os.kill(os.getpid(), signal.SIGINT)\n    [None for _ in range(10**6)]"
    turned = "except BaseException as error:\n    raise ImportError('no pydantic') from error"
    code = f"import os, signal\ntry:\n    {interrupted}\n{turned}\n"
    (tmp_path / "pydantic.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stderr == "interrupted; the same command resumes from here\n"
    assert done.returncode == 130


def test_after_its_imports_a_command_is_interrupted_as_any(tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from infra.interrupts import guard_imports\nguard_imports()\n"
    )
    (folder / "one.py").write_text(
        """
import os, signal
from infra.command_line import run_and_exit

def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        [None for _ in range(10**6)]
    finally:
        print("cleaned up", flush=True)

run_and_exit(work)
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "commands.one"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stdout == "cleaned up\n"
    assert done.stderr == "interrupted; the same command resumes from here\n"
    assert done.returncode == 130
