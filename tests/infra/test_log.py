"""Log lines: plain, once, on standard error, from the chosen level on."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.log import LEVEL_VARIABLE, configure, logger

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _info():
    yield
    configure(None)


def test_a_line_is_plain_and_goes_to_standard_error_once(capsys: pytest.CaptureFixture[str]):
    logging.getLogger().addHandler(root := logging.StreamHandler(sys.stderr))
    try:
        configure(None)
        logger.info("prepare: 3 of 4 videos")
    finally:
        logging.getLogger().removeHandler(root)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "prepare: 3 of 4 videos\n")


@pytest.mark.parametrize(
    ("level", "shown"), [("warning", "b\n"), ("DEBUG", "x\na\nb\n"), (None, "a\nb\n")]
)
def test_the_level_holds_back_what_is_below(level: str | None, shown: str, capsys):
    configure(level)
    logger.debug("x")
    logger.info("a")
    logger.warning("b")
    assert capsys.readouterr().err == shown


def test_the_level_comes_from_the_environment_and_a_wrong_one_is_named():
    code = "from infra.log import logger; logger.info('a'); logger.error('b')"
    shown = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, LEVEL_VARIABLE: level},
            capture_output=True,
            text=True,
        ).stderr
        for level in ("ERROR", "loud")
    ]
    assert shown[0] == "b\n"
    first, *rest = shown[1].splitlines()
    assert first.startswith("LONGTAKE_LOG_LEVEL=loud: not a level; allowed are ")
    assert rest == ["a", "b"]
