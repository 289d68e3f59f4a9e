"""Check that a clip table has clips as long as a recipe's training stages need.

A corpus of short films would otherwise be decoded and train a tokenizer before the first stage that
finds no clip of its length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.sampling import TRAIN, VALIDATION, FrameSettings, HeldOut, position
from infra.errors import UserError
from ray_jobs import clip_tables
from ray_jobs.sharding import plan
from ray_jobs.training.config import StageConfig

MOST_FPS = 30.0
"""Film has no more frames a second, as a rule: a higher rate would repeat them."""


@dataclass(frozen=True)
class Longest:
    """The frames of the longest clips of a clip table."""

    train: int
    validation: int
    seconds: float
    """Of the longest clip."""


def check(table_uri: str, settings: FrameSettings, stages: Sequence[StageConfig]) -> None:
    """Refuse stages of which no clip has the length.

    Args:
        table_uri: a finished clip table.
        settings: how its clips become frames.
        stages: all that train on them.

    Raises:
        UserError: names the length, what there is, and the ways out.
    """
    needed = max(mix.frames for stage in stages for mix in stage.data)
    held = max(min(mix.frames for mix in stage.data) for stage in stages)
    found = longest(table_uri, settings, needed)
    if found.train >= needed and found.validation >= held:
        return
    split, has, wants = (
        ("train", found.train, needed)
        if found.train < needed
        else ("held-out", found.validation, held)
    )
    fps = math.ceil(needed / max(found.seconds, 1e-9))
    faster = f"frames.fps={fps}, " if settings.fps < fps <= MOST_FPS else ""
    raise UserError(
        f"{table_uri}: its longest {split} clip has {has} frames at {settings.fps:g} a second, and "
        f"a stage needs {wants}; allowed are {faster}films with longer shots, or stages and "
        "windows of fewer frames"
    )


def longest(table_uri: str, settings: FrameSettings, enough: int) -> Longest:
    """Return the longest clips of both splits; reads until there are some that are long enough."""
    share, clips, seconds = settings.validation_share, 0, 0.0
    most = {TRAIN: 0, VALIDATION: 0}
    lowest: tuple[float, str, int] | None = None
    parts = clip_tables.parts_of(table_uri)
    held = HeldOut(share)
    for part in range(parts.count):
        for clip in plan.clips_of(parts.uri(part), settings):
            clips, seconds = clips + 1, max(seconds, clip.end_s - clip.start_s)
            split = held.split(clip.clip_id)
            most[split] = max(most[split], clip.frames)
            at = position(clip.clip_id), clip.clip_id, clip.frames
            lowest = at if lowest is None else min(lowest, at)
            if min(most.values()) >= enough:
                return Longest(most[TRAIN], most[VALIDATION], seconds)
    chosen = HeldOut.of(share, clips, lowest[1] if lowest else None)
    if chosen.only is not None and lowest is not None:  # the one that is held out all the same
        most[VALIDATION] = lowest[2]
    return Longest(most[TRAIN], most[VALIDATION], seconds)
