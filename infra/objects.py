"""Objects of an S3 bucket by their very names: listed a page at a time, removed in batches.

fsspec reads ``*``, ``?`` and ``[`` in a name as patterns where it removes things. Only
:mod:`infra.storage` uses this module.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

REMOVED_AT_ONCE = 1000
"""As many as S3 takes in a request."""


def walk(fs: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield every object below ``bucket/key`` with its size in bytes, in the order of names."""
    bucket, _, key = path.partition("/")
    for name, size in _listed(fs, bucket, f"{key}/" if key else ""):
        if not name.endswith("/"):
            yield f"{bucket}/{name}", size


def remove(fs: Any, path: str) -> None:
    """Remove the object ``bucket/key`` and all below it.

    Raises:
        PermissionError: one may not be removed.
        ValueError: a whole bucket.
    """
    bucket, _, key = path.partition("/")
    if not key:
        raise ValueError(f"{path}: a whole bucket")
    keys = chain([key], (name for name, _ in _listed(fs, bucket, f"{key}/")))
    while some := list(islice(keys, REMOVED_AT_ONCE)):
        listed = {"Objects": [{"Key": each} for each in some], "Quiet": True}
        answer = fs.call_s3("delete_objects", Bucket=bucket, Delete=listed)
        for error in answer.get("Errors", ()):
            raised = PermissionError if error.get("Code") == "AccessDenied" else OSError
            raise raised(f"{error.get('Key')}: {error.get('Code')} {error.get('Message', '')}")


def _listed(fs: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    more: dict[str, str] = {}
    while True:
        try:
            page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        except FileNotFoundError:  # no such bucket
            return
        for item in page.get("Contents", ()):
            yield item["Key"], int(item["Size"])
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}
