"""Worker of `score`: decodes the frames of one part's clips and writes its file with their scores.

It holds no model: rows of frames go to the models' actors through the object store, a few batches
ahead of the scores that come back, so that decoding and scoring overlap and memory stays bounded.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from data_prep import selection
from data_prep.decode_process import DecodeLimits
from data_prep.filters import FiltersConfig
from infra.errors import Unavailable, UserError
from ray_jobs.judgement import Judgement, rewrite
from ray_jobs.scoring.decoding import FramesConfig, rows_of_file
from ray_jobs.scoring.models import Pool
from ray_jobs.scoring.rows import Row, Scores, merge
from ray_jobs.units import Parts, Receipt

ROWS_AT_ONCE = 4
"""Rows that a model is given together, so that frames of several videos fill its batches."""
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class PartScoring:
    """Scores a part by its number."""

    parts: Parts
    """Of the output."""
    table: Parts
    """The input's."""
    frames: FramesConfig
    limits: DecodeLimits
    filters: FiltersConfig
    """By which clips are judged once they are scored."""
    weights: dict[str, str]
    """Which weights made the scores, for the schema's metadata."""
    pools: tuple[Pool, ...]

    def __call__(self, part: int) -> Receipt:
        """Write the part's file."""
        source = self.table.uri(part)
        rows = rows_of_file(source, self.frames, self.limits)
        scores, failed = self._scores(rows, part)
        made = score_file(
            source, self.parts.uri(part), scores, self.filters, self.weights, len(failed)
        )
        return {"rows": made.accounts["inputs"], "failed": len(failed)}

    def _scores(self, rows: Iterator[Row], part: int) -> tuple[Scores, dict[str, str]]:
        scores: Scores = {}
        failed: dict[str, str] = {}
        waiting: deque[list[Any]] = deque()
        turn = part
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            for row in batch:
                failed |= row.failed
            if there := [row for row in batch if len(row.frames_NHWC)]:
                stored = ray.put(there)
                waiting.append([pool.score(stored, turn) for pool in self.pools])
                turn += 1
            if len(waiting) > BATCHES_AHEAD:
                _collect(waiting.popleft(), scores)
        for results in waiting:
            _collect(results, scores)
        return scores, failed


def _collect(results: list[Any], scores: Scores) -> None:
    try:
        for found in ray.get(results):
            merge(scores, found)
    except RayTaskError as error:
        if isinstance(error.cause, Unavailable | UserError):
            raise error.cause from None
        raise


def score_file(
    source: str,
    target: str,
    scores: Scores,
    filters: FiltersConfig,
    weights: dict[str, str],
    unreadable_clips: int = 0,
) -> Judgement:
    """Write one file of the table with scores and verdicts; return what came of it.

    Args:
        source: a file of the input's table.
        target: the file to write.
        scores: of its clips; what is not there stays as it is.
        filters: the thresholds.
        weights: to add to the schema's metadata.
        unreadable_clips: kept clips of the file whose frames could not be read.
    """

    def judge(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, list[tuple[str, ...]]]:
        reasons = rows.column("clips").flatten().field("reason").to_pylist()
        copies = {n for n, reason in enumerate(reasons) if reason == selection.NEAR_DUPLICATE}
        return selection.reselect(selection.with_scores(rows, scores), filters, copies)

    return rewrite(source, target, judge, weights, unreadable_clips)
