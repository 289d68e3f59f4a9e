"""Plain trees of values out of YAML and JSON: maps, lists and scalars, bounded in size and depth.

A file from elsewhere may hold what Python makes of it and nobody else can: dates and sets, a list
within itself, a few lines that stand for millions. It is refused where it is read.
"""

import json
from typing import Any

import yaml

MOST_DEPTH = 100
"""Maps and lists within each other."""
MOST_VALUES = 1_000_000
"""Values of a YAML file, an alias counted as often as it stands there."""
_MOST_BITS = 1024

_YAML_ERRORS = (
    yaml.YAMLError,
    ValueError,  # the 31st of February, !!int x, a number of 5,000 digits
    KeyError,  # !!bool x
    AttributeError,  # !!timestamp x
    TypeError,  # !!omap of what is none
    RecursionError,
)


def of_yaml(text: str | bytes) -> Any:
    """Return the tree that YAML stands for.

    Raises:
        ValueError: one line that says what is not allowed.
    """
    try:
        tree = yaml.safe_load(text)
    except _YAML_ERRORS as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    check(tree)
    return tree


def of_json(data: str | bytes) -> Any:
    """Return the value that JSON stands for; see :func:`of_yaml` for the error."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {' '.join(str(error).split())}") from None


def map_of_json(data: str | bytes) -> dict[str, Any]:
    """Return the map that JSON stands for; ValueError where it is none, or no plain tree."""
    value = of_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"holds {type(value).__name__}; expected a map of keys to values")
    check(value)
    return value


def check(tree: Any) -> None:
    """Refuse what is no plain tree.

    Raises:
        ValueError: names the place of a value of another kind, or what is too deep or too much.
    """
    left: list[tuple[str, Any, int]] = [("", tree, 0)]
    values = 0
    while left:
        path, value, depth = left.pop()
        values += 1
        if depth > MOST_DEPTH:
            top = path.split(".", 1)[0]
            raise ValueError(f"{top}: more than {MOST_DEPTH} lists and maps within each other")
        if values > MOST_VALUES:
            raise ValueError(f"holds more than {MOST_VALUES:,} values")
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, _ in items:
                if key is not None and not isinstance(key, str | int | float):
                    raise ValueError(f"{path}: a key that is a {type(key).__name__} is not allowed")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            left += [
                (f"{path}.{key}" if path else str(key), each, depth + 1) for key, each in items
            ]
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ValueError(f"{path}: a whole number of {value.bit_length()} bits is too large")
        elif value is not None and not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise ValueError(f"{path}: a {kind} is not allowed; put text in quotes")
