"""Films that an evaluation is given: of `videos` artifacts, of directories or of manifests."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from data_prep import manifest
from infra import artifact, storage
from infra.errors import UserError
from ray_jobs import video_table
from ray_jobs.evaluation.measures_table import Record

FILM = pa.schema(
    [
        ("source", pa.string()),
        *[field for field in video_table.SCHEMA if field.name not in ("prompts", "seconds")],
    ]
)
"""A film as a unit of work. A column that a plain film lacks is null."""


@dataclass(frozen=True)
class Source:
    """One input."""

    uri: str
    kind: str
    """`videos` that a system generated, `held_out` for film of an artifact, else `films`."""
    fingerprint: str | None = None
    """Of an artifact."""

    def films(self) -> Iterator[dict[str, Any]]:
        """Yield its films as rows of `FILM`, with ``models`` and ``settings`` as values."""
        if self.fingerprint is not None:
            for row in video_table.read(self.uri):
                yield {**{name: row.get(name) for name in FILM.names}, "source": self.uri}
            return
        for row in manifest.read((self.uri,)).table.to_pylist():
            film = dict.fromkeys(FILM.names)
            known = {"video_id": row["source_id"], "file": row["uri"], "prompt": row["caption"]}
            yield {**film, **known, "source": ""}


def sources(uris: Sequence[str]) -> list[Source]:
    """Return what each input is.

    Raises:
        UserError: an artifact that is unfinished or of another kind, or an input given twice.
    """
    if twice := {uri for uri in uris if list(uris).count(uri) > 1}:
        raise UserError(f"input: {min(twice)} is given twice")
    return [_source(uri) for uri in uris]


def uri_of(film: Record) -> str:
    """Return where a film is.

    Raises:
        UserError: its artifact names a file that is not below it.
    """
    if not film["source"]:
        return str(film["file"])
    return video_table.film_uri(film["source"], film)


def as_json(source: Source, films: int) -> dict[str, Any]:
    """Return a source for metrics.json."""
    return {**asdict(source), "films": films}


def _source(uri: str) -> Source:
    markers = (artifact.MARKER, artifact.UNFINISHED)
    if any(storage.exists(storage.join(uri, marker)) for marker in markers):
        fingerprint = artifact.read(uri, ("videos",)).fingerprint
        first = next(video_table.read(uri), {"settings": {}})
        held_out = first["settings"].get("kind") == video_table.HELD_OUT
        return Source(uri, video_table.HELD_OUT if held_out else "videos", fingerprint)
    return Source(uri, "films")
