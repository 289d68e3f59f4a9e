"""Checkpoints: saving and restoring a DeepSpeed engine, with the state of the training run.

Loading never runs code from a file: torch is told to read tensors and plain values only, and the
few classes that DeepSpeed itself puts into its files are named one by one. Each rank writes the
digests of its files, so that a checkpoint is found out before it is loaded that is damaged, lacks a
file or has one that nobody wrote.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from pydantic import ConfigDict, TypeAdapter
from safetensors.torch import load_file, save_file

from infra import trees
from infra.errors import one_line
from ray_jobs.training import zero
from ray_jobs.training.engine import Engine

_TAG = "state"
_TRAIN_STATE = "train_state.json"
_DIGESTS = "sha256-{rank}.json"
_UNTRAINED = "untrained.safetensors"
_EMA = "ema-{rank}.safetensors"
_DEEPSPEED_CLASSES = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]


@dataclass(frozen=True)
class PendingValidation:
    """An asynchronous validation whose figures are not in the log yet."""

    step: int
    stage: int


@dataclass
class TrainState:
    """Position of a run: what a checkpoint holds in addition to the engine's own state."""

    __pydantic_config__ = ConfigDict(extra="forbid")
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
    losses: list[float] = field(default_factory=list)
    """Of the last steps, newest last: what a spike is measured against."""
    pending: PendingValidation | None = None


_STATE = TypeAdapter(TrainState)


def save(engine: Engine, train_state: TrainState, folder: str, rank: int) -> None:
    """Write this rank's part of a checkpoint into a local folder (every rank calls this)."""
    engine.deepspeed.save_checkpoint(folder, tag=_TAG, exclude_frozen_parameters=True)
    root = Path(folder)
    if untrained := zero.untrained(engine.deepspeed, engine.frozen, keep=rank == 0):
        save_file(untrained, root / _UNTRAINED)
    if engine.ema is not None:
        save_file(engine.ema.state(), root / _EMA.format(rank=rank))
    for script in root.glob("*.py"):  # DeepSpeed adds conversion scripts; a checkpoint is data
        script.unlink()
    if rank == 0:
        (root / _TRAIN_STATE).write_text(json.dumps(asdict(train_state)))
    files = sorted(file for file in root.rglob("*") if file.is_file())
    digests = {str(file.relative_to(root)): _digest(file) for file in files}
    (root / _DIGESTS.format(rank=rank)).write_text(json.dumps(digests))


def read_train_state(folder: str) -> TrainState:
    """Return where the run was when the checkpoint in `folder` was written."""
    return _STATE.validate_json(Path(folder, _TRAIN_STATE).read_bytes(), strict=True)


def problem(folder: str, rank: int, workers: int) -> str | None:
    """Return what is wrong with a checkpoint, or None; each rank reads a share of the files.

    The digests of all writers together name every file that is there, and no other.
    """
    try:
        digests = _read_digests(folder, read_train_state(folder).workers)
        if odd := _files(folder) ^ {name for written in digests for name in written}:
            return f"{min(odd)} is missing, or in none of the digests"
        for written in digests[rank::workers]:
            for name, digest in written.items():
                if _digest(Path(folder, name)) != digest:
                    return f"{name} is not as it was written"
    except (OSError, ValueError) as error:
        return one_line(error)
    return None


def _read_digests(folder: str, writers: int) -> list[dict[str, Any]]:
    names = (_DIGESTS.format(rank=writer) for writer in range(writers))
    return [trees.map_of_json(Path(folder, name).read_bytes()) for name in names]


def _files(folder: str) -> set[str]:
    """Return the files that digests name: not the digests, nor what Ray Train puts beside."""
    files = (file for file in Path(folder).rglob("*") if file.is_file())
    names = {str(file.relative_to(folder)) for file in files}
    return {name for name in names if not name.startswith((".", _DIGESTS.partition("{")[0]))}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def restore(engine: Engine, folder: str, rank: int) -> None:
    """Load a checkpoint into an engine of the same stage, whose frozen weights are there."""
    with _only_data():  # not strict: it holds only what trains
        path, _ = engine.deepspeed.load_checkpoint(folder, tag=_TAG, load_module_strict=False)
    if path is None:
        raise RuntimeError(f"{folder}: DeepSpeed found no checkpoint in it")
    if (untrained := Path(folder, _UNTRAINED)).exists():
        zero.fill(engine.deepspeed, load_file(untrained))
    if engine.ema is not None:
        mine = Path(folder, _EMA.format(rank=rank))  # under ZeRO 0 all ranks have the same
        engine.ema.load(load_file(mine if mine.exists() else Path(folder, _EMA.format(rank=0))))


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
