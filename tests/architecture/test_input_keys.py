"""What a job reads counts in its fingerprint by content, wherever its config names it."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import ray_jobs
import tuning
from infra.config import Uri
from infra.job import Job
from models.hub import WeightsUri

JOBS = [
    module.JOB
    for package in (ray_jobs, tuning)
    for found in pkgutil.iter_modules(package.__path__)
    if isinstance(
        getattr(module := importlib.import_module(f"{package.__name__}.{found.name}"), "JOB", None),
        Job,
    )
]


def places(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config that are places to read from."""
    for name, field in model.model_fields.items():
        key = f"{above}{field.alias or name}"
        parts = [*parts_of(field.annotation), field.metadata]
        if any(marks(part) & {mark(Uri), mark(WeightsUri)} for part in parts):
            yield key
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from places(part, f"{key}.")


def parts_of(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def mark(uri: Any) -> Any:
    """Return what tells a kind of URI from another text: the function that makes it absolute."""
    return uri.__metadata__[-1].func


def marks(part: Any) -> set[Any]:
    metadata = part if isinstance(part, list) else getattr(part, "__metadata__", ())
    return {each.func for each in metadata if hasattr(each, "func")}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_place_that_a_job_reads_counts_by_content(job: Job[Any]):
    read = set(places(job.config)) - {"output"}
    assert {"input"} <= read
    assert read <= set(job.config.input_keys)


def test_places_are_found_in_sections_and_unions():
    configs = {job.name: set(places(job.config)) for job in JOBS}
    assert {"codec", "text.model"} <= configs["tokenize"]
    assert {"initial.from", "model.perceptual.weights"} <= configs["train_tokenizer"]
    assert {"stages.clip.weights", "stages.clip.head"} <= configs["score"]
