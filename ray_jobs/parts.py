"""Numbered parts: work cut into pieces whose files have fixed names, so that a rerun is exact.

The cut depends on the inputs alone. A part is one Ray Data row, one task, one file, written whole
or not at all. A rerun does the parts whose file is missing, and files, rows and their order come
out the same, however often and wherever the run was killed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from data_prep import shards
from infra import storage
from infra.artifact import Output
from infra.config import Resources
from infra.errors import UserError
from infra.progress import Progress
from ray_jobs.part_files import row_groups

Row = dict[str, Any]
MOST_BLOCKS = 1000


class Worker(Protocol):
    """Makes the rows of one part. Built once an actor, so that it can hold a model."""

    def rows(self, units: list[Row]) -> Iterator[Row]:
        """Yield the part's rows; a unit that cannot be read is yielded as ``{"failed": …}``."""
        ...


@dataclass(frozen=True)
class Factory:
    """How to build a worker in its actor: a class and its arguments."""

    worker: type[Worker]
    arguments: dict[str, Any]


def write(
    output: Output,
    folder: str,
    schema: pa.Schema,
    parts: Sequence[list[Row]],
    factory: Factory,
    resources: Resources,
) -> None:
    """Write every part that is missing as ``folder/part-00000.parquet`` and so on.

    Units that failed go to ``failed/part-00000.json``, written before the part itself.

    Args:
        output: the running job's output.
        folder: the folder below it.
        schema: of the rows.
        parts: the units of each part, as JSON values.
        factory: makes the workers.
        resources: how many workers run at once, and what each takes.
    """
    there = set(storage.list_files(output.path(folder), (".parquet",)))
    missing = [n for n in range(len(parts)) if _file(output, folder, n) not in there]
    with Progress(len(parts), f"{output.uri.rsplit('/', 1)[-1]}", "parts", len(there)) as bar:
        if not missing:
            return
        rows = [{"number": n, "units": json.dumps(parts[n])} for n in missing]
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
        written = dataset.map(
            _Writer,  # pyright: ignore[reportArgumentType]: a class, built once an actor
            fn_constructor_kwargs={
                "output": output, "folder": folder, "schema": schema, "factory": factory,
            },
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=min(resources.workers, len(rows)),
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker or None,
        )  # fmt: skip
        for row in written.iter_rows():
            if row["unavailable"]:
                raise storage.Unavailable(row["unavailable"])
            bar.advance(note=f"{row['rows']} rows, {row['failed']} failed")


def failures(output: Output) -> list[Row]:
    """Return every unit that failed, from the files of all attempts."""
    files = storage.list_files(output.path("failed"), (".json",))
    return [failure for file in files for failure in storage.read_json(file)]


def scan(uri: str, folder: str, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the named columns of each Parquet file of an artifact's folder, in order."""
    files = storage.list_files(storage.join(uri, folder), (".parquet",))
    if not files:
        raise UserError(f"{uri}: no Parquet files below {folder}")
    for file in files:
        with storage.open_input(file) as source:
            yield pq.ParquetFile(source).read(columns=columns)


class _Writer:
    def __init__(self, output: Output, folder: str, schema: pa.Schema, factory: Factory) -> None:
        self._output, self._folder, self._schema = output, folder, schema
        self._worker = factory.worker(**factory.arguments)

    def __call__(self, row: Row) -> Row:
        try:
            return {**self._write(row), "unavailable": ""}
        except storage.Unavailable as error:  # no verdict on any unit: the job stops
            return {"number": row["number"], "rows": 0, "failed": 0, "unavailable": str(error)}

    def _write(self, row: Row) -> Row:
        number = row["number"]
        failed: list[Row] = []
        count = 0
        with (
            storage.open_output(_file(self._output, self._folder, number)) as file,
            shards.Writer(file, self._schema) as writer,
        ):
            for group in row_groups(self._made(row, failed), _bytes):
                writer.write_table(pa.Table.from_pylist(group, self._schema))
                count += len(group)
            if failed:  # before the part appears, so that a part's failures are never lost
                storage.write_json(self._output.path("failed", f"part-{number:05d}.json"), failed)
        return {"number": number, "rows": count, "failed": len(failed)}

    def _made(self, row: Row, failed: list[Row]) -> Iterator[Row]:
        """Yield the rows of a part, and put units that failed on a list."""
        for made in self._worker.rows(json.loads(row["units"])):
            if "failed" in made:
                failed.append(made["failed"])
            else:
                yield made


def _file(output: Output, folder: str, number: int) -> str:
    return output.path(folder, f"part-{number:05d}.parquet")


def _bytes(value: Any) -> int:
    """Return about how many bytes a value takes as Arrow has it."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list):
        plain = not value or isinstance(value[0], int | float)
        return 4 * len(value) if plain else sum(map(_bytes, value))
    return 8
