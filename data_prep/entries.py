"""One input of a run: its URI, its caption, and the columns that came with it."""

import json
import math
import operator
import reprlib
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

ROW_BYTES_MAX = 1 << 20
"""The most text that one input may bring: URI, caption and further columns together."""


@dataclass(frozen=True)
class Entry:
    """One input video, or an archive in which none can be found."""

    uri: str
    caption: str | None = None
    extra: str | None = None
    """The further columns as the text of a JSON object, keys sorted; None when there are none."""
    damage: str | None = None
    """What is wrong with its archive; None: read it."""
    size_bytes: int | None = None
    """Of the file or the member; None where no listing tells it."""


def build(uri: str, row: dict[str, Any], unsaid: list[str] | None = None) -> Entry:
    """Return the entry of a row; columns that are empty or None are left out.

    So are numbers that are none (NaN, infinite), wherever in a column they are.

    Args:
        uri: of the video.
        row: ``caption``, and further columns of JSON values, dates or decimals.
        unsaid: is given the columns that had such numbers.

    Raises:
        ValueError: says what is wrong with the row.
    """
    finite = {name: _finite(value) for name, value in row.items() if name != "uri"}
    if unsaid is not None:
        unsaid += [name for name, value in finite.items() if value is not row[name]]
    caption = finite.pop("caption", None)
    if not isinstance(caption, str | None):
        raise ValueError(f"caption is {reprlib.repr(caption)}; give text or nothing")
    columns = {name: value for name, value in finite.items() if value not in (None, "")}
    try:
        extra = json.dumps(
            columns, ensure_ascii=False, sort_keys=True, allow_nan=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"a column cannot be JSON: {error}") from None
    entry = Entry(uri, (caption or "").strip() or None, extra if columns else None)
    _check(entry)
    return entry


def inherited(entry: Entry, above: Entry) -> Entry:
    """Return an entry with the caption and the columns of `above` that it has none of."""
    columns = {**json.loads(above.extra or "{}"), **json.loads(entry.extra or "{}")}
    extra = json.dumps(columns, ensure_ascii=False, sort_keys=True) if columns else None
    return replace(entry, caption=entry.caption or above.caption, extra=extra)


def _finite(value: Any) -> Any:
    """Return a value without numbers that are none: the value itself where it holds none."""
    if isinstance(value, float | Decimal):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        items = [_finite(item) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if isinstance(value, dict):
        items = {key: _finite(item) for key, item in value.items()}
        return value if all(items[key] is value[key] for key in items) else items
    return value


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("it holds bytes; leave it out of the manifest")
    return str(value)


def _check(entry: Entry) -> None:
    """Refuse what no Arrow table can hold, and what a run should not carry around."""
    text = f"{entry.uri}{entry.caption or ''}{entry.extra or ''}"
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        shown = text[:200].encode(errors="backslashreplace").decode()
        raise ValueError(f"the name {shown} is not UTF-8; rename the file") from None
    if size_bytes > ROW_BYTES_MAX:
        raise ValueError(f"{size_bytes} bytes of text; allowed are {ROW_BYTES_MAX} a row")
