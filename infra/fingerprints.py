"""Fingerprints of jobs: 16 hex digits over config and inputs, and how two configs differ.

``output`` does not count, nor do the keys that a config class declares as ``not_counted``. An input
that is an artifact counts by its own fingerprint and its weights, so that a moved copy is the same
input; a file by its name, size and 64 MiB of its bytes, or all; any other directory by the names
and sizes below it, and the bytes of weights as those of a file, less the job's own output, which
may lie there. What is no path, such as a hub id, counts by its name.
"""

import copy
import functools
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any, cast

from infra import config as configs
from infra import storage
from infra.errors import UserError

MARKER = "artifact.json"
SCHEMA_VERSION = 2
_PIECES, _PIECE_BYTES = 16, 4 << 20  # of a larger file, spread over it
_WEIGHTS = (".safetensors", ".bin")

Identity = Callable[[str], str]
"""Returns what an input counts as; see :func:`identities`."""


def identities(output: str, fingerprint_at: Callable[[str], str]) -> Identity:
    """Return a function that looks at each input once, for the job that writes to `output`.

    Args:
        output: URI of the job's output.
        fingerprint_at: returns what the artifact at a URI counts as.
    """

    @functools.cache
    def identity(uri: str) -> str:
        if not os.path.isabs(uri) and "://" not in uri:
            return f"name {uri}"
        if storage.exists(storage.join(uri, MARKER)):
            return f"artifact {fingerprint_at(uri)}"
        if not storage.exists(uri):
            raise UserError(f"input {uri}: not found")
        if storage.is_dir(uri):
            return f"directory {_listing(uri, output)}"
        size = storage.size_bytes(uri)
        return f"file {storage.name(uri)} {size} {_digest(uri, size)}"

    return identity


def sha256(uri: str) -> str:
    """Return the sha256 of a file's bytes, in hex digits."""
    with storage.open_input(uri) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def _digest(uri: str, size_bytes: int) -> str:
    """Return a digest of a file's bytes, of a large one of pieces from its start to its end."""
    step = max(_PIECE_BYTES, (size_bytes - _PIECE_BYTES) // (_PIECES - 1))
    digest = hashlib.sha256()
    for start in range(0, size_bytes, step):
        digest.update(storage.read_range(uri, start, min(_PIECE_BYTES, size_bytes - start)))
    return digest.hexdigest()[:16]


def _listing(uri: str, output: str) -> str:
    """Return a digest of what is below `uri`, and not below `output`."""
    digest = hashlib.sha256()
    for file, size in storage.walk(uri, leave_out=output):
        held = [_digest(file, size)] if file.endswith(_WEIGHTS) else []
        digest.update(json.dumps([file[len(uri) :], size, *held]).encode())
    return digest.hexdigest()[:16]


def of_tree(
    kind: str, tree: dict[str, Any], like: type[configs.JobConfig], identity: Identity
) -> str:
    """Return the fingerprint of a config as plain values.

    Args:
        kind: of the artifact.
        tree: the config.
        like: its class, which says what does not count and which keys are inputs.
        identity: from :func:`identities`.
    """
    tree = copy.deepcopy(tree)
    for key in ("output", *like.not_counted):
        section, last = _at(tree, key)
        section.pop(last, None)
    for key in like.input_keys:
        section, last = _at(tree, key)
        value = section.get(last)
        if isinstance(value, str):
            section[last] = identity(value)
        elif value is not None:
            section[last] = [identity(uri) for uri in value]
    text = json.dumps([kind, SCHEMA_VERSION, tree], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _at(tree: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the section of a dotted key, empty where there is none, and the key in it."""
    *above, last = key.split(".")
    for name in above:
        tree = tree.get(name) or {}
    return tree, last


def _with_inputs(
    tree: dict[str, Any], today: dict[str, Any], keys: tuple[str, ...]
) -> dict[str, Any]:
    """Return a config with the inputs of today at `keys`."""
    tree = copy.deepcopy(tree)
    for key in keys:
        section, last = _at(tree, key)
        section[last] = _at(today, key)[0].get(last)
    return tree


def grown(old: dict[str, Any], like: type[configs.JobConfig]) -> dict[str, Any] | None:
    """Return a config of another time with all of today's keys; None if it is none today."""
    try:
        return configs.as_tree(configs.build(like, old))
    except UserError:
        return None


def only_added(
    kind: str, old: dict[str, Any], was: str, config: configs.JobConfig, identity: Identity
) -> bool:
    """Return whether only keys were added since, which `config` leaves at their defaults.

    Args:
        kind: of the artifact.
        old: the config that it was made with.
        was: the fingerprint then.
        config: today's.
        identity: from :func:`identities`.
    """
    like, today = type(config), configs.as_tree(config)
    then = grown(old, like)
    if then is None:
        return False
    had = [_at(old, key) for key in like.input_keys]  # they may have moved
    moved = tuple(key for key, at in zip(like.input_keys, had, strict=True) if at[1] in at[0])
    made = of_tree(kind, _with_inputs(old, today, moved), like, identity)
    same = of_tree(kind, _with_inputs(then, today, moved), like, identity)
    return made == was and same == of_tree(kind, today, like, identity)


def differences(old: Any, new: Any, not_counted: tuple[str, ...], path: str = "") -> list[str]:
    """Return the dotted keys in which two configs differ, less those that do not count."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in (*new, *(k for k in old if k not in new)):
            below = f"{path}.{key}" if path else key
            if below not in not_counted:
                lines += differences(old.get(key), new.get(key), not_counted, below)
        return lines
    return [] if old == new else [path]
