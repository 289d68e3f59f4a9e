"""Artifacts: a job's output directory, its fingerprint, and the marker that is written last.

A job's directory holds its data, ``config.yaml`` (resolved), ``summary.json`` and, last of all,
``artifact.json``. A directory without ``artifact.json`` is unfinished: a rerun of the same config
goes on with it, and a rerun of another config into the same place is refused.
"""

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import yaml

from infra import config as configs
from infra import storage
from infra.errors import UserError

MARKER = "artifact.json"
UNFINISHED = "unfinished.json"
SCHEMA_VERSION = 1
NOT_COUNTED = ("resources", "projection", "trials_at_once", "run.tracking")
"""Keys of a config that say how to work, and change nothing in what is made."""
_SMALL = 64 << 20  # bytes; a larger input file counts by name and size alone


@dataclass(frozen=True)
class ArtifactInfo:
    """What ``artifact.json`` says of a finished artifact."""

    kind: str
    schema_version: int
    fingerprint: str
    """16 hex digits over kind, schema version, config and inputs."""
    counts: dict[str, int]
    seconds: float
    """Wall-clock seconds of the run that finished it."""
    files: list[dict[str, Any]]
    """``path`` (relative) and ``size_bytes`` of every file."""


class State(Enum):
    """What :func:`begin` found at the output."""

    NEW = "new"
    RESUMED = "resumed"
    FINISHED = "finished"


@dataclass(frozen=True)
class Output:
    """Where a running job writes."""

    uri: str
    fingerprint: str
    state: State

    def path(self, *parts: str) -> str:
        """Return the URI of `parts` below the output."""
        return storage.join(self.uri, *parts)


def read(uri: str, kinds: tuple[str, ...] = ()) -> ArtifactInfo:
    """Return what a finished artifact says of itself.

    Args:
        uri: the artifact's directory.
        kinds: the kinds that the caller can use; empty takes any.

    Raises:
        UserError: nothing there, not finished, or of another kind.
    """
    marker = storage.join(uri, MARKER)
    if not storage.exists(marker):
        if storage.exists(storage.join(uri, UNFINISHED)):
            raise UserError(f"{uri}: unfinished; run the job that makes it again, it goes on")
        expected = " or ".join(kinds) or "any"
        raise UserError(f"{uri}: no artifact here (no {MARKER}); expected kind: {expected}")
    try:
        info = ArtifactInfo(**storage.read_json(marker))
    except TypeError:
        raise UserError(f"{marker}: not an artifact marker of schema {SCHEMA_VERSION}") from None
    if info.schema_version != SCHEMA_VERSION:
        raise UserError(f"{marker}: schema {info.schema_version}; readable is {SCHEMA_VERSION}")
    if kinds and info.kind not in kinds:
        raise UserError(f"{uri}: an artifact of kind {info.kind!r}; expected {' or '.join(kinds)}")
    return info


def fingerprint(kind: str, config: configs.JobConfig) -> str:
    """Return 16 hex digits that change with the config or the inputs, and with nothing else.

    ``output`` and what is in `NOT_COUNTED` do not count. An input that is an artifact counts by its
    own fingerprint, so that a moved copy is the same input; a file by its name, size and (up to
    64 MiB) bytes; any other directory by the names and sizes below it.
    """
    return _fingerprint(kind, configs.as_tree(config), config.input_keys)


def _fingerprint(kind: str, tree: dict[str, Any], input_keys: tuple[str, ...]) -> str:
    tree = copy.deepcopy(tree)
    for key in ("output", *NOT_COUNTED):
        *above, last = key.split(".")
        section = tree
        for name in above:
            section = section.get(name, {})
        section.pop(last, None)
    for key in input_keys:
        value = tree.get(key)
        if isinstance(value, str):
            tree[key] = _identity(value)
        elif value is not None:
            tree[key] = [_identity(uri) for uri in value]
    text = json.dumps([kind, SCHEMA_VERSION, tree], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def look(kind: str, config: configs.JobConfig) -> State:
    """Return what is at the output of a job, and write nothing.

    Raises:
        UserError: the place holds the work of another config, or files of something else.
    """
    uri = config.output
    for name, state in ((MARKER, State.FINISHED), (UNFINISHED, State.RESUMED)):
        if storage.exists(storage.join(uri, name)):
            _refuse_other(uri, storage.read_json(storage.join(uri, name)), kind, config)
            return state
    if storage.list_files(uri):
        raise UserError(f"output {uri}: holds files of something else; give an empty directory")
    return State.NEW


def begin(kind: str, config: configs.JobConfig) -> Output:
    """Open the output of a job: new, unfinished (to go on with) or finished.

    Raises:
        UserError: as :func:`look`.
    """
    uri, state = config.output, look(kind, config)
    output = Output(uri, fingerprint(kind, config), state)
    if state is State.FINISHED:
        return output
    if state is State.NEW:
        storage.make_dirs(uri)
    # First the marker: with the config alone, one that an older version began would be refused.
    marked = {"kind": kind, "fingerprint": output.fingerprint}
    storage.write_json(storage.join(uri, UNFINISHED), marked)
    storage.write_text(storage.join(uri, "config.yaml"), configs.dump(config))
    return output


def finish(output: Output, kind: str, summary: dict[str, Any], begun_at: float) -> ArtifactInfo:
    """Write ``summary.json`` and then, last of all, the marker.

    Args:
        output: from :func:`begin`.
        kind: the artifact's kind.
        summary: JSON values; its whole numbers become the artifact's counts.
        begun_at: ``time.monotonic()`` when the job started.
    """
    storage.write_json(output.path("summary.json"), summary)
    files = [
        {"path": file[len(output.uri) + 1 :], "size_bytes": size_bytes}
        for file, size_bytes in storage.list_sizes(output.uri).items()
        if storage.name(file) != UNFINISHED
    ]
    counts = {k: v for k, v in summary.items() if isinstance(v, int) and not isinstance(v, bool)}
    seconds = round(time.monotonic() - begun_at, 3)
    info = ArtifactInfo(kind, SCHEMA_VERSION, output.fingerprint, counts, seconds, files)
    storage.write_json(output.path(MARKER), asdict(info))
    storage.remove(output.path(UNFINISHED))
    return info


def _identity(uri: str) -> str:
    if storage.exists(storage.join(uri, MARKER)):
        return f"artifact {read(uri).fingerprint}"
    if not storage.exists(uri):
        raise UserError(f"input {uri}: not found")
    if not storage.is_dir(uri):
        size = storage.size_bytes(uri)
        small = hashlib.sha256(storage.read_bytes(uri)).hexdigest()[:16] if size <= _SMALL else ""
        return f"file {storage.name(uri)} {size} {small}"
    listing = [(file[len(uri) :], size) for file, size in storage.list_sizes(uri).items()]
    return f"directory {hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]}"


def _refuse_other(uri: str, was: dict[str, Any], kind: str, config: configs.JobConfig) -> None:
    if was.get("kind") != kind:
        raise UserError(
            f"output {uri}: holds an artifact of kind {was.get('kind')!r}, not {kind!r}"
        )
    if was.get("fingerprint") == fingerprint(kind, config):
        return
    file = storage.join(uri, "config.yaml")
    old = yaml.safe_load(storage.read_text(file)) if storage.exists(file) else None
    changed = ["unknown keys"]
    if isinstance(old, dict):
        grown = _grown(old, config)
        if _is_older(old, grown, was, kind, config):
            return
        changed = _differences(grown or old, configs.as_tree(config))
    what = ", ".join(changed) if changed else "the contents of its inputs"
    raise UserError(
        f"output {uri}: made with another config (changed: {what}); "
        "give another output, or remove this one"
    )


def _grown(old: dict[str, Any], config: configs.JobConfig) -> dict[str, Any] | None:
    """Return a config of another time with all of today's keys; None if it is none today."""
    try:
        return configs.as_tree(configs.build(type(config), old))
    except UserError:
        return None


def _is_older(
    old: dict[str, Any],
    grown: dict[str, Any] | None,
    was: dict[str, Any],
    kind: str,
    config: configs.JobConfig,
) -> bool:
    """Whether only keys were added since, which `config` leaves at their defaults."""
    keys, today = config.input_keys, configs.as_tree(config)
    inputs = {key: today[key] for key in keys if key in old}  # they may have moved
    return (
        grown is not None
        and _fingerprint(kind, {**old, **inputs}, keys) == was.get("fingerprint")
        and _fingerprint(kind, {**grown, **inputs}, keys) == fingerprint(kind, config)
    )


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in (*new, *(k for k in old if k not in new)):
            below = f"{path}.{key}" if path else key
            if key not in NOT_COUNTED and below not in NOT_COUNTED:
                lines += _differences(old.get(key), new.get(key), below)
        return lines
    return [] if old == new else [path]
