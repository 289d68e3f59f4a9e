"""Strict job configuration: defaults < files from left to right < ``key.sub=value`` overrides.

A config is a tree of frozen pydantic sections. An unknown key, a wrong type or a value out of
range stops a job before any work, in one line that names the key, the value and what is allowed.
"""

import difflib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from infra import override_values, storage, trees
from infra.errors import UserError, one_line

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray sets in the environment of what `ray job submit` starts."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and wrong types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Resources(Section):
    """What a job asks of the cluster. Not part of an artifact's fingerprint."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Training workers, or the most tasks that run at once."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0


def refuse_ignored(section: Section, because: str, *keys: str) -> None:
    """Refuse keys that differ from their defaults although a mode ignores them; for validators.

    A config that states them would record as a setting what changes nothing in the work.

    Args:
        section: the settings.
        because: names the mode, such as ``"policy: stop"``.
        keys: what it ignores.

    Raises:
        ValueError: names the first such key and its value.
    """
    for key in keys:
        default = type(section).model_fields[key].get_default(call_default_factory=True)
        if (value := getattr(section, key)) != default:
            raise ValueError(f"{key} {value} is ignored with {because}; leave it out")


def as_tuple(value: Any) -> Any:
    """Return a single string or a list as a tuple: what a key of many values may be given as."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Uri = Annotated[str, Field(min_length=1), AfterValidator(storage.absolute)]
"""A local path, made absolute where the job is called, or an ``s3://`` URI."""


def _output(uri: str) -> str:
    absolute = storage.absolute(uri)
    given = os.path.expanduser(uri.removeprefix("file://"))
    if SUBMITTED in os.environ and not storage.is_remote(uri) and not os.path.isabs(given):
        raise ValueError(
            f"{uri}: below the working directory of a submitted job, which Ray removes; "
            "allowed are absolute paths and s3:// URIs that outlive the job"
        )
    return absolute


OutputUri = Annotated[str, Field(min_length=1), AfterValidator(_output)]
"""As `Uri`, of what is made: in a job that was submitted to a cluster no relative path."""


class JobConfig(Section):
    """The keys that every job has."""

    input_keys: ClassVar[tuple[str, ...]] = ("input",)
    """Dotted keys that name what the job reads: they count by content in a fingerprint."""
    not_counted: ClassVar[tuple[str, ...]] = ("resources",)
    """Dotted keys that say how to work and change nothing in what is made: no part of it."""

    input: Annotated[tuple[Uri, ...], Field(min_length=1), BeforeValidator(as_tuple)]
    """One URI or a list of them: local paths or ``s3://``."""
    output: OutputUri
    """The URI of the artifact that the job makes."""
    seed: int = 0
    resources: Resources = Resources()


C = TypeVar("C", bound=Section)


def load(model: type[C], files: Sequence[str | Path], overrides: Iterable[str] = ()) -> C:
    """Read a config of type `model`.

    Args:
        model: the section to build.
        files: YAML files; a later one wins over an earlier one, key by key. A file may lie over one
            beside it: ``extends: NAME.yaml``.
        overrides: ``key.sub=value`` strings; see :mod:`infra.override_values` for the value.
            ``list.0.key`` reaches into lists, and ``list.NAME.key`` to the item of that ``name``.

    Raises:
        UserError: a file cannot be read, or a key, type or value is not allowed.
    """
    tree: dict[str, Any] = {}
    for file in files:
        tree = merge(tree, read_yaml(str(file)))
    for override in overrides:
        _apply(model, tree, override)
    return build(model, tree)


def build(model: type[C], tree: dict[str, Any]) -> C:
    """Validate a plain tree of values as a `model`; see :func:`load` for the errors."""
    try:
        trees.check(tree)
    except ValueError as error:
        raise UserError(f"config: {error}") from None
    for path, number in _no_numbers(tree):
        raise UserError(
            f"{path}: {number} is not allowed: give a finite number, or null where a key takes it "
            "for no limit"
        )
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise UserError(_explain(model, error)) from None


def _no_numbers(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the path of each number below that is NaN or infinite, which JSON cannot hold."""
    if isinstance(node, float) and not math.isfinite(node):
        yield path, node
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, below in items:
        yield from _no_numbers(below, f"{path}.{key}" if path else str(key))


def merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Return a plain tree of values in which those of `high` win over those of `low`."""
    merged = dict(low)
    for key, value in high.items():
        both_maps = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_maps else value
    return merged


def as_tree(config: Section) -> dict[str, Any]:
    """Return a config as plain maps, lists and scalars."""
    return json.loads(config.model_dump_json())


def dump(config: Section) -> str:
    """Return a config as YAML that :func:`load` reads back to an equal config."""
    return yaml.safe_dump(as_tree(config), sort_keys=False, allow_unicode=True)


def read_yaml(file: str, _below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the map in a YAML file, laid over that of the file that its key ``extends`` names.

    Raises:
        UserError: there is no such file, it is no map, or files extend each other in a circle.
    """
    if not storage.exists(file):
        raise UserError(f"config file {file}: not found")
    data = storage.read_bytes(file)
    try:
        tree = trees.of_yaml(data)
    except ValueError as error:
        raise UserError(f"config file {file}: {one_line(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"config file {file}: holds a {type(tree).__name__}; expected key: value")
    if (base := tree.pop("extends", None)) is None:
        return tree
    if not isinstance(base, str) or "/" in base or file in _below:
        raise UserError(
            f"config file {file}: extends {base!r}; allowed is the name of another file beside it"
        )
    beside = storage.join(storage.absolute(file).rsplit("/", 1)[0], base)
    return merge(read_yaml(beside, (*_below, file)), tree)


def _apply(model: type[Section], tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise UserError(f"override {override!r}: expected key=value, for example output=outputs/a")
    try:
        value = override_values.parse(text, override_values.annotation_at(model, path))
        put(tree, path, value)
    except UserError as error:
        raise UserError(f"override {override!r}: {error}") from None


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at ``key.sub`` of a plain tree, which is changed.

    An item of a list goes by its position, or by its ``name`` where it has one.

    Raises:
        UserError: the path leads below a value, or to no item of a list.
    """
    *above, last = path.split(".")
    node: Any = tree
    for key in above:
        node = node[_index(node, key)] if isinstance(node, list) else node.setdefault(key, {})
        if not isinstance(node, dict | list):
            raise UserError(f"{key} is a value, it has no keys below it")
    if isinstance(node, list):
        node[_index(node, last)] = value
    else:
        node[last] = value


def _index(node: list[Any], key: str) -> int:
    if key.isdigit() and int(key) < len(node):
        return int(key)
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if key in names:
        return names.index(key)
    known = [name for name in names if name is not None]
    named = f", and no name: {', '.join(known)}" if known else ""
    raise UserError(f"{key!r} is no position in a list of {len(node)}{named}")


def _explain(model: type[Section], error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"]) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key{_suggest(model, item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"{where}: missing; give it in a config file or as {where}=…")
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            lines.append(
                f"{where}: {one_line(repr(item.get('input')), 120)} is not allowed: {message}"
            )
    return "; ".join(lines)


def _suggest(model: type[Section], loc: tuple[int | str, ...]) -> str:
    section = _section_at(model, loc[:-1])
    if section is None:
        return ""
    names = [field.alias or name for name, field in section.model_fields.items()]
    close = difflib.get_close_matches(str(loc[-1]), names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint or ';'} allowed: {', '.join(names)}"


def _section_at(model: type[Section], loc: tuple[int | str, ...]) -> type[Section] | None:
    section: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = getattr(section, "model_fields", {}).get(part)
        section = _sections_in(field.annotation) if field else None
        if section is None:
            return None
    return section


def _sections_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) is Union or get_args(annotation):
        found = [s for a in get_args(annotation) if (s := _sections_in(a)) is not None]
        return found[0] if len(found) == 1 else None
    return None
