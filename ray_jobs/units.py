"""Resumable driver of numbered parts: each is done once, whatever is killed and started again.

::

    planning ─▶ units/…               what each part has to do (ray_jobs.unit_tables)
    run      ─▶ folder/000000/part-000000000.parquet, …      one main file a part, written last

The cut into parts depends on the inputs alone. A part whose main file is there is done; a rerun
lists them and does the others. A worker that is lost redoes at most the part it was at. The driver
holds a bit a part, and nothing a unit.

When storage does not answer, nobody judges a unit by it: the worker says so in its receipt, and
the driver stops with :class:`storage.Unavailable`; the same command resumes.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from infra import storage
from infra.config import Resources
from infra.errors import UserError
from infra.log import logger
from infra.progress import Progress
from ray_jobs.part_files import part_path

WAVE_PARTS = 8000
"""Parts that Ray Data is given at a time: it holds some KB of each until the last one is done."""
LISTINGS_AT_ONCE = 16
_PART = re.compile(r"part-(\d{9})")

Receipt = dict[str, Any]
"""What came of a part, as JSON values: ``part``, and what the worker tells of it, such as ``rows``
and ``failed``. One whose file was there when a worker came has ``found`` true and nothing else."""

Worker = Callable[[int], Receipt]
"""Does a part by its number: writes its files, the main one last, and returns its receipt."""


@dataclass(frozen=True)
class Parts:
    """The numbered parts of a job and where their main files lie."""

    output_uri: str
    folder: str
    """Below the output, such as ``clips``."""
    count: int
    suffix: str = ".parquet"
    """Of the main files."""
    unit: str = "parts"
    """What the progress counts, in the plural."""

    def uri(self, part: int) -> str:
        """Return where the main file of a part lies."""
        return storage.join(self.output_uri, part_path(self.folder, part, self.suffix))

    def uris(self) -> Iterator[str]:
        """Yield where the main files of all parts lie, in order."""
        return map(self.uri, range(self.count))


@dataclass(frozen=True)
class Factory:
    """How to build a worker where it runs: a class or function and its arguments."""

    build: Callable[..., Worker]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A step that every part passes before its last one, on workers of its own."""

    factory: Factory
    """Builds what is called with a part and the bytes that came with it, and returns bytes."""
    resources: Resources


def done(parts: Parts) -> NDArray[np.bool_]:
    """Return which parts have their main file, (count,); folders are listed side by side."""
    there = np.zeros(parts.count, np.bool_)
    folder = storage.join(parts.output_uri, parts.folder)

    def look(below: str) -> None:
        for file, _ in storage.walk(below, (parts.suffix,)):
            found = _PART.match(storage.name(file))
            if found and int(found[1]) < parts.count:
                there[int(found[1])] = True

    with ThreadPoolExecutor(LISTINGS_AT_ONCE) as pool:
        list(pool.map(look, storage.list_folders(folder)))
    return there


def run(
    parts: Parts,
    factory: Factory,
    resources: Resources,
    *,
    actors: bool = True,
    note: Callable[[Receipt], str] | None = None,
    before: Sequence[Step] = (),
) -> Iterator[Receipt]:
    """Do every part that is not done, and yield the receipts as they come, in any order.

    Args:
        parts: of the job.
        factory: builds the workers, each where it runs.
        resources: what each worker takes of the cluster.
        actors: a worker lives through the run, to hold a model, and at most ``resources.workers``
            run; else one is built a task, and as many run as the cluster has room for.
        note: what the progress is to show beside its count, given each receipt; None: rows and
            failures so far.
        before: steps that carry bytes to `factory`'s workers, which then take them after the part.

    Raises:
        storage.Unavailable: storage did not answer a worker.
        UserError: a worker refuses its work.
    """
    missing = np.flatnonzero(~done(parts))
    note = note or _sums()
    name = storage.name(parts.output_uri)
    with Progress(parts.count, name, parts.unit, parts.count - len(missing)) as progress:
        if not len(missing):
            return
        _tell_of_waiting([step.resources for step in before] + [resources])
        for begin in range(0, len(missing), WAVE_PARTS):
            wave = missing[begin : begin + WAVE_PARTS].tolist()
            receipts = _receipts(wave, parts, factory, resources, actors, before)
            for row in receipts.iter_rows():
                receipt = json.loads(row["receipt"])
                if unavailable := receipt.get("unavailable"):
                    raise storage.Unavailable(unavailable)
                if refused := receipt.get("refused"):
                    raise UserError(refused)
                progress.advance(1, note(receipt))
                yield receipt


def _receipts(
    wave: list[int],
    parts: Parts,
    factory: Factory,
    resources: Resources,
    actors: bool,
    before: Sequence[Step],
) -> ray.data.Dataset:
    """Return the receipts of some parts, one a block, as Ray Data will give them."""
    # The driver puts the blocks there: a task that cut them would need a CPU beside the workers',
    # and wait for ever on a machine that has no more.
    numbers = ray.data.from_items([{"data": part} for part in wave], override_num_blocks=len(wave))
    for step in before:
        numbers = numbers.map_batches(
            **_held(_Carrier, parts, step.factory, step.resources, len(wave))
        )
    if actors:
        return numbers.map_batches(**_held(_Actor, parts, factory, resources, len(wave)))
    once: Any = _once  # pyright takes its own type of a batch for granted
    return numbers.map_batches(once, fn_args=(parts, factory), **_each(resources))


def _tell_of_waiting(steps: Sequence[Resources]) -> None:
    """Warn where the workers of all steps, one of each, are more than the cluster has room for."""
    needed = sum(each.cpus_per_worker for each in steps)
    there = ray.cluster_resources().get("CPU", 0)
    if needed > there:
        logger.warning(
            f"waiting until the cluster has {needed:g} CPUs, one worker for each of {len(steps)} "
            f"steps; it has {there:g}"
        )


def _held(
    actor: type, parts: Parts, factory: Factory, resources: Resources, most: int
) -> dict[str, Any]:
    """Return how Ray Data is to run a worker that lives through the run."""
    return {
        "fn": actor,
        "fn_constructor_args": (parts, factory),
        "compute": ray.data.ActorPoolStrategy(
            min_size=1, max_size=min(resources.workers, most), max_tasks_in_flight_per_actor=2
        ),
        **_each(resources),
    }


def _each(resources: Resources) -> dict[str, Any]:
    return {
        "num_cpus": resources.cpus_per_worker,
        "num_gpus": resources.gpus_per_worker or None,
        "batch_size": None,
    }


class _Holder:
    """Holds a worker, or why there is none."""

    def __init__(self, parts: Parts, factory: Factory) -> None:
        self._parts = parts
        self._refusal: Receipt | None = None
        try:
            self._worker: Callable[..., Any] = factory.build(**factory.arguments)
        except (storage.Unavailable, UserError) as error:
            self._refusal = _refusal(error)


class _Carrier(_Holder):
    """Worker of an earlier step: adds to each part what it carries, or why it cannot."""

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        carried, refusals = [], []
        for part, before, refused in _rows(batch):
            refusal, made = refused or self._refusal, b""
            if refusal is None:
                try:
                    made = self._worker(part, before)
                except (storage.Unavailable, UserError) as error:
                    refusal = _refusal(error)
            carried.append(made)
            refusals.append(json.dumps(refusal))
        return {"data": batch["data"], "carried": carried, "refusal": refusals}


class _Actor(_Holder):
    """Worker of the last step, whose receipts go to the driver."""

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[str]]:
        receipts: list[Receipt] = []
        for part, carried, refused in _rows(batch):
            brought = (carried,) if "carried" in batch else ()
            receipts.append(
                {"part": part, **(refused or self._refusal or self._do(part, *brought))}
            )
            if "unavailable" in receipts[-1] or "refused" in receipts[-1]:
                break  # the driver stops at it, so the rest of the block can wait
        return {"receipt": list(map(json.dumps, receipts))}

    def _do(self, part: int, *carried: bytes) -> Receipt:
        try:
            # A worker that was lost may have left its part behind, but no receipt.
            there = storage.exists(self._parts.uri(part))
            return {"found": True} if there else self._worker(part, *carried)
        except (storage.Unavailable, UserError) as error:
            return _refusal(error)


def _rows(batch: dict[str, NDArray[Any]]) -> Iterator[tuple[int, bytes, Receipt | None]]:
    """Yield each part of a block, what it carries, and why an earlier step refused it."""
    count = len(batch["data"])
    carried = batch.get("carried", [b""] * count)
    refusals = batch.get("refusal", ["null"] * count)
    for part, each, refusal in zip(batch["data"], carried, refusals, strict=True):
        yield int(part), each, json.loads(refusal)


def _once(batch: dict[str, NDArray[Any]], parts: Parts, factory: Factory) -> dict[str, list[str]]:
    return _Actor(parts, factory)(batch)


def _refusal(error: Exception) -> Receipt:
    away = isinstance(error, storage.Unavailable)
    return {"unavailable" if away else "refused": str(error) or type(error).__name__}


def _sums() -> Callable[[Receipt], str]:
    sums = {"rows": 0, "failed": 0}

    def note(receipt: Receipt) -> str:
        for key in sums:
            sums[key] += receipt.get(key, 0)
        return ", ".join(f"{total} {key}" for key, total in sums.items())

    return note
