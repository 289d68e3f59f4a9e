"""Ctrl-C while a command still imports its packages, which takes seconds: one line, no trace."""

import os
import signal
import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""
MESSAGE = "interrupted; the same command resumes from here"


def guard_imports() -> None:
    """Say so in one line and exit when Ctrl-C comes before :func:`imports_are_done`.

    Packages of commands call this first of all; it does something only where ``python -m`` is about
    to run one of their modules. The process ends on the spot, since there is nothing to clean up,
    and some libraries make an error of their own of a KeyboardInterrupt in their imports.
    """
    started = sys.argv[:1] == ["-m"]
    if started and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def imports_are_done() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(INTERRUPTED)
