"""The finished artifacts that a report is about: found, checked and held by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra import artifact, storage, trees
from infra.artifact import ArtifactInfo
from infra.errors import UserError, one_line

KINDS = ("clips", "frames", "tokenizer", "tokens", "autoregressive", "videos")
"""The kinds of which a report takes one artifact each, in the pipeline's order."""
MEASURES = "measures"
"""The kind of which it takes any number, to compare them."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact and the small files that describe it."""

    uri: str
    info: ArtifactInfo
    summary: dict[str, Any]
    config_text: str
    """`config.yaml` as written; empty when there is none."""

    def metrics(self) -> dict[str, Any]:
        """What metrics.json of an artifact of kind `measures` says."""
        return storage.read_map(storage.join(self.uri, "metrics.json"))

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl in order of step; empty when there is none."""
        uri = storage.join(self.uri, "metrics.jsonl")
        if not storage.exists(uri):
            return []
        lines = [
            _record(uri, line) for line in storage.read_bytes(uri).splitlines() if line.strip()
        ]
        return sorted(lines, key=lambda line: line["step"])


@dataclass(frozen=True)
class Inputs:
    """The artifacts of a report."""

    by_kind: dict[str, Artifact]
    """At most one of each of `KINDS`, in that order."""
    measures: tuple[Artifact, ...] = ()
    """In the order they were given."""

    @property
    def all(self) -> list[Artifact]:
        """Every artifact."""
        return [*self.by_kind.values(), *self.measures]

    @property
    def of_generated(self) -> tuple[Artifact, ...]:
        """The measures of generated videos: of the `videos` artifact where there is one.

        Without one: those whose sources are artifacts of kind `videos`, all of them.
        """
        made = self.by_kind.get("videos")

        def is_of_generated(measures: Artifact) -> bool:
            found = measures.metrics()["sources"]
            if made is not None:
                return made.info.fingerprint in [source["fingerprint"] for source in found]
            return all(source["kind"] == "videos" for source in found)

        return tuple(filter(is_of_generated, self.measures))

    @property
    def of_film(self) -> Artifact | None:
        """The first measures that are of film alone, which generated videos are held against."""
        for measures in self.measures:
            if all(source["kind"] != "videos" for source in measures.metrics()["sources"]):
                return measures
        return None


def read_all(uris: Sequence[str]) -> Inputs:
    """Read finished artifacts.

    Raises:
        UserError: An artifact is missing, unfinished or of a kind that no job makes; two are of
            one kind that a report takes once; or a clip table's accounting does not add up.
    """
    found: dict[str, Artifact] = {}
    measures: list[Artifact] = []
    for uri in uris:
        info = artifact.read(uri, (*KINDS, MEASURES))
        config_uri = storage.join(uri, "config.yaml")
        config_text = storage.read_text(config_uri) if storage.exists(config_uri) else ""
        summary = artifact.summary(uri)
        read = Artifact(uri, info, summary, config_text)
        if info.kind == MEASURES:
            measures.append(read)
            continue
        if info.kind in found:
            raise UserError(
                f"input: {uri} and {found[info.kind].uri} are both of kind {info.kind!r}; "
                f"a report takes one artifact of each kind, and any number of kind {MEASURES!r}"
            )
        found[info.kind] = read
    if "clips" in found:
        check_accounting(found["clips"])
    return Inputs({kind: found[kind] for kind in KINDS if kind in found}, tuple(measures))


def _record(uri: str, line: bytes) -> dict[str, Any]:
    try:
        record = trees.of_json(line)
    except ValueError as error:
        raise UserError(f"{uri}: a line is {one_line(error)}") from None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise UserError(f"{uri}: a line holds no step; expected what training writes")
    return record


def check_accounting(clips: Artifact) -> None:
    """Refuse a clip table whose inputs are not all kept, filtered or quarantined."""
    summary = clips.summary
    kept = summary["kept"]
    filtered, quarantined = (sum(summary[key].values()) for key in ("filtered", "quarantined"))
    if summary["inputs"] != kept + filtered + quarantined:
        raise UserError(
            f"{clips.uri}: accounting does not add up: {summary['inputs']} inputs, but "
            f"{kept} kept + {filtered} filtered + {quarantined} quarantined = "
            f"{kept + filtered + quarantined}"
        )
