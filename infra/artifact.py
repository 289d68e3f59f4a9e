"""Artifacts: a job's output directory, its fingerprint, and the marker that is written last.

A job's directory holds its data, ``config.yaml`` (resolved), ``summary.json``, ``files.parquet``
(an index of its files) and, last of all, ``artifact.json``. A directory without ``artifact.json``
is unfinished: a rerun of the same config resumes it, and a rerun of another config into the same
place is refused.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, TypeAdapter, ValidationError

from infra import config as configs
from infra import fingerprints, parquet, run_lock, storage
from infra.errors import UserError, one_line
from infra.fingerprints import MARKER, SCHEMA_VERSION, Identity

UNFINISHED = "unfinished.json"
SUMMARY = "summary.json"
INDEX = "files.parquet"
_MODEL = re.compile(r"[^/]+\.safetensors|config\.json")
_INDEX_SCHEMA = pa.schema([("path", pa.string()), ("size_bytes", pa.int64())])
_FILES_AT_ONCE = 65_536


@dataclass(frozen=True)
class ArtifactInfo:
    """What ``artifact.json`` says of a finished artifact."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: str
    schema_version: int
    fingerprint: str
    """16 hex digits over kind, schema version, config and inputs."""
    counts: dict[str, int]
    seconds: float
    """Wall-clock seconds of the run that finished it."""
    files: int
    """How many there are, the index and the markers not counted."""
    size_bytes: int
    """Of all of these files together."""
    index: str = INDEX
    """Names the index, a Parquet file of ``path`` (relative, in order) and ``size_bytes``."""
    weights: dict[str, str] = field(default_factory=dict)
    """sha256 of a model's files, by their names; empty where the artifact is no model."""

    @property
    def identity(self) -> str:
        """The fingerprint, and for a model what its weights are, which a config does not say."""
        if not self.weights:
            return self.fingerprint
        held = json.dumps(self.weights, sort_keys=True).encode()
        return f"{self.fingerprint}-{hashlib.sha256(held).hexdigest()[:16]}"


_INFO = TypeAdapter(ArtifactInfo)


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
        UserError: nothing there, not finished, of another kind, or of an earlier version.
    """
    marker = storage.join(uri, MARKER)
    if not storage.exists(marker):
        if storage.exists(storage.join(uri, UNFINISHED)):
            raise UserError(f"{uri}: unfinished; run the job that makes it again, it resumes")
        expected = " or ".join(kinds) or "any"
        raise UserError(f"{uri}: no artifact here (no {MARKER}); expected kind: {expected}")
    tree = storage.read_map(marker)
    _refuse_other_version(uri, tree)
    try:
        info = _INFO.validate_json(json.dumps(tree), strict=True)
    except ValidationError:
        raise UserError(f"{marker}: not an artifact marker of schema {SCHEMA_VERSION}") from None
    if kinds and info.kind not in kinds:
        kind = one_line(repr(info.kind), 60)
        raise UserError(f"{uri}: an artifact of kind {kind}; expected {' or '.join(kinds)}")
    return info


def check_weights(uri: str, name: str, sha256: str) -> None:
    """Refuse a model's file that is not the one with which an artifact was finished.

    Args:
        uri: the artifact's directory; a place that is none says nothing of its files.
        name: of the file there.
        sha256: of its bytes.
    """
    if not storage.exists(storage.join(uri, MARKER)):
        return
    if read(uri).weights.get(name, sha256) != sha256:
        raise UserError(
            f"{storage.join(uri, name)}: not the file that this artifact was finished with; "
            "bring that one back, or copy the model's files into a directory of their own"
        )


def summary(uri: str, **needed: type) -> dict[str, Any]:
    """Return what the job that made a finished artifact says of its work.

    Args:
        uri: the artifact's directory.
        needed: keys that the caller reads, and the type of each; a whole number is a float too.

    Raises:
        UserError: there is no summary, or a key that is needed is missing or of another type.
    """
    file = storage.join(uri, SUMMARY)
    tree = storage.read_map(file)
    for key, kind in needed.items():
        value = tree.get(key)
        if not isinstance(value, (int, float) if kind is float else kind) or value is True:
            raise UserError(
                f"{file}: {key} is {one_line(repr(value), 60)}; expected {kind.__name__}"
            )
    return tree


def files(uri: str, below: str = "") -> Iterator[tuple[str, int]]:
    """Yield the files of a finished artifact with their sizes in bytes, in the order of names.

    Args:
        uri: the artifact's directory.
        below: a folder of it, such as ``clips``; empty yields all.
    """
    prefix = f"{below.rstrip('/')}/" if below else ""
    with storage.open_input(storage.join(uri, read(uri).index)) as file:
        for batch in parquet.batches(pq.ParquetFile(file), _FILES_AT_ONCE):
            for path, size in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if path.startswith(prefix):
                    yield path, size


def fingerprint(kind: str, config: configs.JobConfig) -> str:
    """Return 16 hex digits that change with the config or the inputs, and with nothing else.

    See :mod:`infra.fingerprints` for what counts.
    """
    return _fingerprint(kind, config, _identities(config))


def look(kind: str, config: configs.JobConfig) -> Output:
    """Return what is at the output of a job, and write nothing.

    Of a new one the fingerprint is empty, since its inputs have not been looked at.

    Raises:
        UserError: an input of work begun is not there, or the place holds the work of another
            config or of an earlier version, or files of something else.
    """
    uri, identity = config.output, _identities(config)
    for name, state in ((MARKER, State.FINISHED), (UNFINISHED, State.RESUMED)):
        if storage.exists(marker := storage.join(uri, name)):
            was = storage.read_map(marker)
            _refuse_other_version(uri, was)
            _refuse_other(uri, was, kind, config, identity)
            return Output(uri, _fingerprint(kind, config, identity), state)
    if any(file != storage.join(uri, run_lock.FILE) for file, _ in storage.walk(uri)):
        raise UserError(f"output {uri}: holds files of something else; give an empty directory")
    return Output(uri, "", State.NEW)


def begin(kind: str, config: configs.JobConfig, found: Output | None = None) -> Output:
    """Open the output of a job: new, unfinished (to be resumed) or finished.

    Args:
        kind: of the artifact.
        config: of the job.
        found: from :func:`look`, just before; None looks now.

    Raises:
        UserError: as :func:`look`.
    """
    output = found or look(kind, config)
    if output.state is not State.FINISHED and storage.exists(output.path(MARKER)):
        output = look(kind, config)  # finished since
    if output.state is State.FINISHED:
        return output
    if output.state is State.NEW:
        output = replace(output, fingerprint=fingerprint(kind, config))
        storage.make_dirs(output.uri)
    # First the marker: with the config alone, one that an older version began would be refused.
    marked = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "fingerprint": output.fingerprint,
    }
    storage.write_json(output.path(UNFINISHED), marked)
    storage.write_text(output.path("config.yaml"), configs.dump(config))
    return output


def finish(output: Output, kind: str, summary: dict[str, Any], begun_at: float) -> ArtifactInfo:
    """Write ``summary.json``, the index and then, last of all, the marker.

    Args:
        output: from :func:`begin`.
        kind: the artifact's kind.
        summary: JSON values; its whole numbers become the artifact's counts.
        begun_at: ``time.monotonic()`` when the job started.
    """
    _remove_partials(output.uri)
    storage.write_json(output.path(SUMMARY), summary)
    counts = {k: v for k, v in summary.items() if isinstance(v, int) and not isinstance(v, bool)}
    seconds = round(time.monotonic() - begun_at, 3)
    files, size_bytes, models = _write_index(output)
    weights = {name: fingerprints.sha256(output.path(name)) for name in models}
    info = ArtifactInfo(
        kind, SCHEMA_VERSION, output.fingerprint, counts, seconds, files, size_bytes,
        weights=weights,
    )  # fmt: skip
    storage.write_json(output.path(MARKER), asdict(info))
    storage.remove(output.path(UNFINISHED))
    return info


def _remove_partials(uri: str) -> None:
    """Remove what killed writers left on a disk; in S3 they leave nothing to be seen."""
    if not storage.is_remote(uri):
        for file in Path(uri).rglob(".*.partial"):
            file.unlink(missing_ok=True)


def _write_index(output: Output) -> tuple[int, int, list[str]]:
    """Write the index of the files below the output.

    Returns:
        How many they are, their bytes, and which of them are a model's.
    """
    own = {output.path(name) for name in (UNFINISHED, INDEX, MARKER, run_lock.FILE)}
    below = len(output.uri) + 1
    found = ((file[below:], size) for file, size in storage.walk(output.uri) if file not in own)
    count, size_bytes, models = 0, 0, []
    with (
        storage.open_output(output.path(INDEX)) as file,
        pq.ParquetWriter(file, _INDEX_SCHEMA, compression="zstd") as writer,
    ):
        while some := list(islice(found, _FILES_AT_ONCE)):
            paths, sizes = zip(*some, strict=True)
            writer.write_table(pa.table([paths, sizes], schema=_INDEX_SCHEMA))
            count, size_bytes = count + len(some), size_bytes + sum(sizes)
            models += [path for path in paths if _MODEL.fullmatch(path)]
    return count, size_bytes, models


def _identities(config: configs.JobConfig) -> Identity:
    return fingerprints.identities(config.output, lambda uri: read(uri).identity)


def _fingerprint(kind: str, config: configs.JobConfig, identity: Identity) -> str:
    return fingerprints.of_tree(kind, configs.as_tree(config), type(config), identity)


def _refuse_other_version(uri: str, marked: dict[str, Any]) -> None:
    if (version := marked.get("schema_version", 1)) != SCHEMA_VERSION:
        shown = one_line(repr(version), 60)
        raise UserError(
            f"{uri}: made by another version of Longtake (schema {shown}, readable is "
            f"{SCHEMA_VERSION}); remove this directory or give another output, and make it again"
        )


def _refuse_other(
    uri: str, was: dict[str, Any], kind: str, config: configs.JobConfig, identity: Identity
) -> None:
    if was.get("kind") != kind:
        raise UserError(
            f"output {uri}: holds an artifact of kind {one_line(repr(was.get('kind')), 60)}, "
            f"not {kind!r}"
        )
    if was.get("fingerprint") == _fingerprint(kind, config, identity):
        return
    file = storage.join(uri, "config.yaml")
    old = configs.read_yaml(file) if storage.exists(file) else {}
    changed = ["unknown keys"]
    if old:
        if fingerprints.only_added(kind, old, str(was.get("fingerprint")), config, identity):
            return
        then = fingerprints.grown(old, type(config)) or old
        skip = ("output", *config.not_counted)
        changed = fingerprints.differences(then, configs.as_tree(config), skip)
    what = ", ".join(changed) if changed else "the contents of its inputs"
    raise UserError(
        f"output {uri}: made with another config (changed: {what}); "
        "give another output, or remove this one"
    )
