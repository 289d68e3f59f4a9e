"""Models that score clips, each in a pool of actors with resources of its own.

A model is imported where it is built, so that no process loads more than its pool needs.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import ray

from data_prep.filters import aesthetic, safety, similarity, text
from ray_jobs.scoring.config import BatchedStage, ClipStage, Stage, StagesConfig
from ray_jobs.scoring.rows import Row, Scores, merge


class Scorer(Protocol):
    """Scores the frames of rows."""

    def score(self, rows: list[Row]) -> Scores:
        """Return what it says of the rows' clips; those without frames are left out."""
        ...


class SafetyScorer:
    """Gives ``unsafe``."""

    def __init__(self, stage: BatchedStage) -> None:
        """Load the model."""
        from models.perception.unsafe import Unsafe

        self._model = Unsafe(stage.threads, stage.num_gpus > 0, stage.batch_frames)

    def score(self, rows: list[Row]) -> Scores:
        """Score the frames of all rows at once."""
        scores: Scores = {}
        found = iter(self._model.probabilities(list(chain(*(row.frames_NHWC for row in rows)))))
        for row in rows:
            by_frame = [next(found) for _ in row.frames_NHWC]
            by_clip = [safety.score(part) for part in row.of_clips(by_frame)]
            merge(scores, row.scores("unsafe", by_clip))
        return scores


class TextScorer:
    """Gives ``text_area``."""

    def __init__(self, stage: Stage) -> None:
        """Load the model."""
        from models.perception.text_boxes import TextBoxes

        self._model = TextBoxes(stage.threads, stage.num_gpus > 0)

    def score(self, rows: list[Row]) -> Scores:
        """Score the frames of all rows, one after the other: they have sizes of their own."""
        scores: Scores = {}
        for row in rows:
            _, height, width, _ = row.frames_NHWC.shape
            found = self._model.find(list(row.frames_NHWC))
            areas = [text.area(boxes, width, height) for boxes in found]
            merge(scores, row.scores("text_area", [text.score(p) for p in row.of_clips(areas)]))
        return scores


class ClipScorer:
    """Gives ``caption_similarity`` where there is a caption, and ``aesthetic`` with a head."""

    def __init__(self, stage: ClipStage) -> None:
        """Load the model."""
        import torch

        from models.perception.clip import Clip

        assert stage.weights is not None
        torch.set_num_threads(stage.threads)
        device = torch.device("cuda" if stage.num_gpus > 0 else "cpu")
        self._model = Clip(stage.weights, stage.head, device, stage.batch_frames)

    def score(self, rows: list[Row]) -> Scores:
        """Score the frames and captions of all rows at once."""
        scores: Scores = {}
        captions = sorted({row.caption for row in rows if row.caption})
        embedded = self._model.embed(list(chain(*(row.frames_NHWC for row in rows))))
        ratings = self._model.ratings(embedded)
        embedded_texts = dict(zip(captions, self._model.embed_texts(captions), strict=True))
        first = 0
        for row in rows:
            here = slice(first, first + len(row.frames_NHWC))
            first = here.stop
            if row.caption:
                cosines = (embedded[here] @ embedded_texts[row.caption]).tolist()
                found = [similarity.score(part) for part in row.of_clips(cosines)]
                merge(scores, row.scores("caption_similarity", found))
            if ratings is not None:
                found = [aesthetic.score(part) for part in row.of_clips(ratings[here])]
                merge(scores, row.scores("aesthetic", found))
        return scores


SCORERS: dict[str, Any] = {"safety": SafetyScorer, "text": TextScorer, "clip": ClipScorer}


@dataclass(frozen=True)
class Pool:
    """Actors that hold one model."""

    actors: tuple[Any, ...]

    def score(self, rows: ray.ObjectRef, turn: int) -> ray.ObjectRef:
        """Have one of the actors score rows; return where the scores will be.

        Args:
            rows: a list of :class:`Row` in the object store.
            turn: neighbouring numbers go to different actors.
        """
        return self.actors[turn % len(self.actors)].score.remote(rows)


def start_pools(stages: StagesConfig) -> tuple[Pool, ...]:
    """Start the actors of all models; one that is lost starts again and does its calls again."""
    pools = []
    for name, stage in stages.on.items():
        actor: Any = ray.remote(SCORERS[name]).options(
            num_cpus=stage.num_cpus,
            num_gpus=stage.num_gpus or None,
            max_restarts=-1,
            max_task_retries=-1,
        )
        pools.append(Pool(tuple(actor.remote(stage) for _ in range(stage.workers))))
    return tuple(pools)
