"""The two exceptions that are shown to a user as a single line: bad input, and an outage."""


class UserError(ValueError):
    """Bad input: the message names the thing, its value and what is allowed.

    :func:`infra.job.main` prints it as one line and ends with exit status 2.
    """


class Unavailable(Exception):
    """Storage that does not answer, or lets nobody in: no verdict on what was asked for.

    No `UserError`, so that nobody who judges a video, a unit or a checkpoint by one takes an
    outage for a verdict. The job stops with one line and exit status 75, and the same command
    resumes.
    """


def one_line(error: object, limit: int = 300) -> str:
    """Return an error or a text as one line of at most `limit` characters, for a cell or a log."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
