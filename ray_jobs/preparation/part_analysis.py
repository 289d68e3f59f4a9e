"""Worker of a preparation: analyses a part's videos and writes its file of the clip table."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from data_prep.analysis import AnalysisConfig, analyse
from data_prep.schemas import CLIP_TABLE
from ray_jobs import unit_tables
from ray_jobs.clip_tables import add_up, tally
from ray_jobs.part_files import write_tables
from ray_jobs.preparation.part_footer import PartFooter, pack
from ray_jobs.units import Parts, Receipt

Analyse = Callable[..., dict[str, Any]]
"""Returns the row of a video, given what :func:`data_prep.analysis.analyse` is given."""


class PartAnalysis:
    """Analyses a part by its number.

    Args:
        parts: of the clip table.
        units_uri: of the table of inputs.
        config: how videos are cut and which clips are kept.
        threads: of a detector that is a network; None: there is none.
        analyse: makes a video's row.
    """

    def __init__(
        self,
        parts: Parts,
        units_uri: str,
        config: AnalysisConfig,
        threads: int | None = None,
        analyse: Analyse = analyse,
    ) -> None:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self._parts, self._config, self._analyse = parts, config, analyse
        self._units = unit_tables.Reader(units_uri)

    def __call__(self, part: int) -> Receipt:
        """Write the part's file; every input becomes a row, whatever is wrong with it."""
        tallies: list[dict[str, Any]] = []
        videos: list[str | None] = []

        def tables() -> Iterator[pa.Table]:
            for unit in self._units(part).to_pylist():
                about = {name: unit[name] for name in ("extra", "damage", "size_bytes")}
                row = self._analyse(unit["uri"], unit["caption"], self._config, **about)
                tallies.append(tally(row))
                videos.append(row["video_id"] if row["status"] != "quarantined" else None)
                yield pa.Table.from_pylist([row], CLIP_TABLE)

        def footer() -> dict[str, str]:
            return PartFooter(add_up(tallies), pack(videos)).metadata()

        count = write_tables(self._parts.uri(part), CLIP_TABLE, tables(), footer)
        return {"rows": count, "accounts": add_up(tallies)}
