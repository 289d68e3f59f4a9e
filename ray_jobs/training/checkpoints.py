"""Saving and restoring a DeepSpeed engine, with the place in the run.

Loading never runs code from a file: torch is told to read tensors and plain values only, and the
few classes that DeepSpeed itself puts into its files are named one by one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

_TAG = "state"
_PLACE = "place.json"
_DEEPSPEED_CLASSES = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]


@dataclass
class Place:
    """Where a run is: what a checkpoint knows beside the engine's own state."""

    stage: int = 0
    """Number of the current stage, from 0."""
    stage_step: int = 0
    """Steps done in it."""
    step: int = 0
    """Steps done in all."""
    workers: int = 1
    seconds: float = 0.0
    """Training seconds up to here, over all attempts."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """The lines of ``metrics.jsonl`` up to here."""


def save(engine: deepspeed.DeepSpeedEngine, place: Place, folder: str, rank: int) -> None:
    """Write this rank's part of a checkpoint into a local folder (every rank calls this)."""
    engine.save_checkpoint(folder, tag=_TAG)
    for script in Path(folder).glob(
        "*.py"
    ):  # DeepSpeed adds conversion scripts; a checkpoint is data
        script.unlink()
    if rank == 0:
        Path(folder, _PLACE).write_text(json.dumps(asdict(place)))


def read_place(folder: str) -> Place:
    """Return where the run was when the checkpoint in `folder` was written."""
    return Place(**json.loads(Path(folder, _PLACE).read_text()))


def restore(engine: deepspeed.DeepSpeedEngine, folder: str) -> None:
    """Load a checkpoint into an engine of the same stage."""
    with _only_data():
        path, _ = engine.load_checkpoint(folder, tag=_TAG)
    if path is None:
        raise RuntimeError(f"{folder}: DeepSpeed found no checkpoint in it")


@contextmanager
def _only_data() -> Iterator[None]:
    name = (
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # DeepSpeed asks for weights_only=False; this overrules it
    )
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals(_DEEPSPEED_CLASSES):
            yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})
