"""Values of ``key=value`` overrides: text for a key that takes text, YAML for all others.

A path may hold `` #`` and a prompt ``: ``, which mean something to YAML. So a key of text gets what
was typed, letter by letter; only a value that is wholly in quotes loses them. Of several texts,
``[a, b]`` is a list, whose items are to be in quotes where YAML would not read text; one text is a
list of one.
"""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from infra import trees
from infra.errors import UserError

_NULLS = ("null", "~", "Null", "NULL")


def parse(text: str, annotation: Any = Any) -> Any:
    """Return the value that `text` stands for.

    Args:
        text: what follows the equals sign.
        annotation: of the field, such as ``str | None``; Any where it is not known.

    Raises:
        UserError: a list of texts is none in YAML, or an item of it is no text.
    """
    takes = set(_leaves(annotation))
    if text in _NULLS and types.NoneType in takes:
        return None
    if str in takes and _takes_many(annotation):
        if _flows(text, "[]"):
            return _items(text, maps="{" in text and bool(takes - {str, types.NoneType}))
        if text and not _flows(text, "{}") and str not in _parts(annotation):
            return [_as_typed(text)]
    elif takes <= {str, types.NoneType}:
        return _as_typed(text)
    value = _yaml(text)
    if not takes & {str, Any}:
        return value
    if isinstance(value, str):
        return _as_typed(text)
    no_map = isinstance(value, dict) and not _flows(text, "{}")
    lost = no_map or (value is None and text not in _NULLS)
    return text if lost else value


def annotation_at(model: type[BaseModel], path: str) -> Any:
    """Return the type of a field by its dotted path; Any where there is none, or below a map."""
    found: list[Any] = [model]
    for key in path.split("."):
        found = [below for each in found for part in _parts(each) for below in _below(part, key)]
    return Union[tuple(found)] if found else Any  # noqa: UP007 - of as many as there are


def _below(part: Any, key: str) -> Iterator[Any]:
    if isinstance(part, type) and issubclass(part, BaseModel):
        fields = part.model_fields.items()
        yield from (field.annotation for name, field in fields if key in (name, field.alias))
    elif get_origin(part) in (tuple, list) and get_args(part):
        yield get_args(part)[0]
    elif part is not types.NoneType:
        yield Any


def _yaml(text: str) -> Any:
    try:
        return trees.of_yaml(text) if text else ""
    except ValueError:
        return text


def _as_typed(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    value = _yaml(text) if quoted else text
    return value if isinstance(value, str) else text


def _flows(text: str, brackets: str) -> bool:
    return text[:1] + text[-1:] == brackets


def _items(text: str, maps: bool) -> list[Any]:
    """Return the texts of a list, and maps among them where there may be some."""
    items = _yaml(text)
    if not isinstance(items, list):
        raise UserError("not a list in YAML; put items that hold ' #' or quotes in quotes")
    for item in items:
        if not (isinstance(item, str) or (maps and isinstance(item, dict))):
            raise UserError(f"{item!r} is not text; put each item in quotes: ['…', '…']")
    return items


def _takes_many(annotation: Any) -> bool:
    """Return whether a field takes several texts, such as ``tuple[str, ...]``."""
    many = [p for p in _parts(annotation) if get_origin(p) in (tuple, list) and get_args(p)]
    return any(str in _leaves(each) for each in many)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, or the one type that there is, without what is added to them."""
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _parts(each)
    else:
        yield annotation


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types of single values that a field takes, those of a list's items among them."""
    for each in _parts(annotation):
        if get_origin(each) in (tuple, list) and get_args(each):
            yield from _leaves(get_args(each)[0])
        elif get_origin(each) is Literal:
            yield from {type(value) for value in get_args(each)}
        else:
            yield each
