"""The filesystem behind a URI, local or S3, and what its errors say in one line.

Only :mod:`infra.storage` uses it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import fsspec

from infra.errors import Unavailable, UserError, one_line

REMOTE_SCHEMES = ("s3://",)
MAX_ATTEMPTS = 12
BLOCK_BYTES = 8 << 20
"""What an open remote file reads ahead, and uploads at once."""
_OUTAGES = {
    *(errno.EIO, errno.EBUSY, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE),
    *(errno.ENOMEM, getattr(errno, "EREMOTEIO", errno.EIO)),
}


def is_remote(uri: str) -> bool:
    """Return whether `uri` names an object store."""
    return uri.startswith(REMOTE_SCHEMES)


def absolute(uri: str) -> str:
    """Return `uri` with a local path made absolute; refuse schemes that are not supported."""
    if is_remote(uri):
        return uri.rstrip("/")
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    elif "://" in uri:
        raise UserError(f"{uri}: allowed are local paths, file:// and s3:// URIs")
    return os.path.abspath(os.path.expanduser(uri))


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the filesystem of `uri` and the path to use with it.

    The path is a name, letter by letter: what fsspec reads into ``::`` or ``*`` is no part of it.
    """
    path = absolute(uri)
    if not is_remote(uri):
        return fsspec.filesystem("file"), path
    try:
        return fsspec.filesystem("s3", **_s3_options()), path.removeprefix("s3://")
    except (ImportError, ValueError) as error:
        raise UserError(f"{uri}: {one_line(error)}") from None


def _s3_options() -> dict[str, Any]:
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", MAX_ATTEMPTS))
    return {
        "use_listings_cache": False,  # other processes write too
        "default_block_size": BLOCK_BYTES,
        "max_concurrency": 1,  # only then does a download go on where its connection broke
        "config_kwargs": {
            "retries": {"mode": "adaptive", "total_max_attempts": attempts},
            "connect_timeout": 10,
            "read_timeout": 30,
        },
    }


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what storage raises into one line that names the URI."""
    try:
        yield
    except (UserError, Unavailable):
        raise
    except OSError as error:
        raise _as_line(uri, _in_words(uri, error)) from error
    except Exception as error:
        library = type(error).__module__.split(".")[0]
        if library in ("botocore", "aiobotocore", "aiohttp"):
            away = type(error).__name__ != "ParamValidationError"  # a name that S3 does not allow
            raise (Unavailable if away else UserError)(f"{uri}: {one_line(error)}") from error
        raise


def _in_words(uri: str, error: OSError) -> OSError:
    """Return `error`, or what S3 says when it is asked so that its answer has room for words.

    The answer to a HEAD is a bare 403 or 400 for an object that is closed to us as for a key that
    is wrong or has expired.
    """
    fs, path = filesystem(uri)
    bucket, _, key = path.partition("/")
    if _s3_code(error) not in ("400", "403") or not is_remote(uri) or not key:
        return error
    try:
        cast(Any, fs).call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
    except OSError as said:
        return said
    return error


def _as_line(uri: str, error: OSError) -> UserError | Unavailable:
    """Return the error to raise: a fact about `uri`, or :class:`Unavailable`."""
    code = _s3_code(error)
    if isinstance(error, FileNotFoundError):
        return UserError(f"{uri}: not found")
    if isinstance(error, PermissionError):
        # One object may be closed to us; a key that is wrong or has expired opens none of them.
        closed = code in ("", "AccessDenied", "403")
        return (UserError if closed else Unavailable)(f"{uri}: no permission ({one_line(error)})")
    away = isinstance(error, (ConnectionError, TimeoutError)) or error.errno in _OUTAGES
    away = away or code in ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
    return (Unavailable if away else UserError)(f"{uri}: {one_line(error)}")


def _s3_code(error: BaseException) -> str:
    """Return S3's own name of an error, such as ``"NoSuchKey"``; empty where there is none."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
