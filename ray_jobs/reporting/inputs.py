"""The finished artifacts that a report is about: found, checked and held by kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra import artifact, storage
from infra.artifact import ArtifactInfo
from infra.errors import UserError

KINDS = ("clips", "frames", "tokenizer", "tokens", "autoregressive", "videos")


@dataclass(frozen=True)
class Artifact:
    """A finished artifact and the small files that describe it."""

    uri: str
    info: ArtifactInfo
    summary: dict[str, Any]
    config_text: str
    """`config.yaml` as written; empty when there is none."""

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl in order of step; empty when there is none."""
        uri = storage.join(self.uri, "metrics.jsonl")
        if not storage.exists(uri):
            return []
        lines = [json.loads(line) for line in storage.read_text(uri).splitlines() if line.strip()]
        return sorted(lines, key=lambda line: line["step"])


def read_all(uris: Sequence[str]) -> dict[str, Artifact]:
    """Read finished artifacts, one of each kind, into a dictionary in the pipeline's order.

    Raises:
        UserError: An artifact is missing, unfinished or of a kind that no job makes; two are of
            one kind; or a clip table's accounting does not add up.
    """
    found: dict[str, Artifact] = {}
    for uri in uris:
        info = artifact.read(uri, KINDS)
        if info.kind in found:
            raise UserError(
                f"input: {uri} and {found[info.kind].uri} are both of kind {info.kind!r}; "
                "a report takes one artifact of each kind"
            )
        summary_uri, config_uri = (
            storage.join(uri, "summary.json"),
            storage.join(uri, "config.yaml"),
        )
        config_text = storage.read_text(config_uri) if storage.exists(config_uri) else ""
        found[info.kind] = Artifact(uri, info, storage.read_json(summary_uri), config_text)
    if "clips" in found:
        check_accounting(found["clips"])
    return {kind: found[kind] for kind in KINDS if kind in found}


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
