"""The command line's common parts: help from a config's fields, exit codes for errors."""

import sys
from collections.abc import Callable
from typing import Any, get_args

from infra.config import Section
from infra.errors import Unavailable, UserError
from infra.interrupts import INTERRUPTED, MESSAGE, imports_are_done

TRY_AGAIN = 75
"""Exit status of a job that storage stopped (``EX_TEMPFAIL`` of sysexits.h)."""


def run_and_exit(work: Callable[[], None]) -> None:
    """Call `work` and exit with its status: one line for bad input or an outage.

    0 done, 2 bad input, 75 storage does not answer, 130 interrupted.
    """
    imports_are_done()
    try:
        work()
    except UserError as error:
        print(f"error: {getattr(error, 'cause', error)}", file=sys.stderr)  # Ray's has its trace
        sys.exit(2)
    except Unavailable as error:
        reason = getattr(error, "cause", error)
        print(f"error: {reason}; the same command resumes from here", file=sys.stderr)
        sys.exit(TRY_AGAIN)
    except KeyboardInterrupt:
        print(MESSAGE, file=sys.stderr)
        sys.exit(INTERRUPTED)


def describe(section: type[Section], prefix: str = "") -> list[str]:
    """Return one line for each key of a config: its name, default and description."""
    lines = []
    for name, field in section.model_fields.items():
        key = field.alias or name
        inner = _inner(field.annotation)
        default = f" = {_show(field.get_default(call_default_factory=True))}"  # pyright: ignore
        default = " (required)" if field.is_required() else default
        text = f"  {' '.join(field.description.split())}" if field.description else ""
        if inner:
            needed = " (required)" if field.is_required() else ""
            lines.append(f"  {prefix}{key}{needed}:{text}")
            for below, place in inner:
                lines += describe(below, f"{prefix}{key}.{place}")
        else:
            lines.append(f"  {prefix}{key}{default}{text}")
    return lines


def _inner(annotation: Any) -> list[tuple[type[Section], str]]:
    """Return the sections that a key may hold, several for a choice, and where below it."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [(annotation, "")]
    below = {tuple: "0.", dict: "NAME."}.get(getattr(annotation, "__origin__", None))
    found = [pair for argument in get_args(annotation) for pair in _inner(argument)]
    return [(section, below or place) for section, place in found]


def _show(value: Any) -> str:
    return str(value) if not isinstance(value, tuple) else "[" + ", ".join(map(str, value)) + "]"
