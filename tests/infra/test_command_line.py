"""Exit codes: a user's mistake and an outage are told apart, each in one line."""

import pytest

from infra.command_line import TRY_AGAIN, run_and_exit
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


def test_an_outage_is_no_verdict() -> None:
    assert not issubclass(Unavailable, UserError | ValueError | OSError)
