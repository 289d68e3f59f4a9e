"""Final results of a run: the exported model, its pictures and the summary's figures."""

import tempfile
from pathlib import Path
from typing import Any

from infra import storage
from ray_jobs.training import zero
from ray_jobs.training.engine import Engine
from ray_jobs.training.sinks import SAMPLES
from ray_jobs.training.task import State
from ray_jobs.training.validation import Validation
from ray_jobs.training.work import Work

LAST_FOLDER = "last"
"""Below the output: the last step's weights, where the model is their average."""
SUMMARY_FILE = "training.json"
"""Figures for the job's summary, until the launcher has read them."""


def finish(
    work: Work, engine: Engine, last: State, validation: Validation, figures: dict[str, Any]
) -> None:
    """Validate and export the final model, and write the summary's figures (all ranks call this).

    Args:
        work: of the run.
        engine: at the last step.
        last: its full weights.
        validation: of the run.
        figures: what the loop adds to the summary.
    """
    state = last
    if engine.ema is not None:  # the average is the model, and is validated
        with engine.ema.in_place():
            state = engine.full_state()
        zero.fill(engine.deepspeed, state)
    result = validation.final(engine, state)
    if result is None:
        return
    for name, png in result.judgement.pictures.items():
        storage.write_bytes(storage.join(work.output, SAMPLES, name), png)
    _export(work, state, work.output)
    if state is not last:
        _export(work, last, storage.join(work.output, LAST_FOLDER))
    parameters = [name for name, _ in engine.module.named_parameters() if name in state]
    summary = {
        "parameters": sum(state[name].numel() for name in parameters),  # without frozen ones
        **figures,
        "validation": result.judgement.figures,
    }
    storage.write_json(storage.join(work.output, SUMMARY_FILE), summary)


def _export(work: Work, state: State, uri: str) -> None:
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        work.task.export(state, folder)
        storage.upload_dir(Path(folder), uri)
