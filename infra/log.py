"""The logger ``longtake``: plain lines for people, on standard error.

Standard output stays for results. ``LONGTAKE_LOG_LEVEL`` sets the level (`INFO` without it); the
processes that Ray starts on this machine inherit it, and those of a cluster take its own.
"""

import logging
import os
import sys
from typing import TextIO

LEVEL_VARIABLE = "LONGTAKE_LOG_LEVEL"


class _StandardError(logging.StreamHandler):
    """Writes to what `sys.stderr` is at that moment, and not through `print`.

    Ray Train shows what is printed a second time, and what reaches the root logger too, so the
    logger hands nothing on.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure(level: str | None) -> logging.Logger:
    """Return the logger, set to write from a level on.

    Args:
        level: name of a level of `logging`; None: `INFO`. One that is none is said and passed over.
    """
    logger = logging.getLogger("longtake")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(_StandardError())
    levels = logging.getLevelNamesMapping()
    logger.setLevel(levels.get((level or "INFO").upper(), logging.INFO))
    if level and level.upper() not in levels:
        allowed = ", ".join(levels)
        logger.warning(f"{LEVEL_VARIABLE}={level}: not a level; allowed are {allowed}; INFO holds")
    return logger


logger = configure(os.environ.get(LEVEL_VARIABLE))
