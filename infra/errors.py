"""The one exception that is shown to a user as a single line."""


class UserError(ValueError):
    """Bad input: the message names the thing, its value and what is allowed.

    :func:`infra.job.main` prints it as one line and ends with exit status 2.
    """


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return `error` as one line of at most `limit` characters, for a table cell or a log."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
