"""Unit tables: what each part has to do, written by planning and read by workers a part at a time.

A file holds `PARTS_PER_FILE` parts in their order, each as one row group, so that a part's number
says where it is, and neither the driver nor a worker ever holds the table. ``plan.json``, written
last, says how many there are: without it, planning is done again and gives the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from ray_jobs.part_files import FOOTER_BYTES, part_path, read_footer

PARTS_PER_FILE = 100
PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What planning found."""

    parts: int
    units: int
    """Rows of all parts."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the job wants to remember of it, as JSON values."""


class Writer:
    """Writes a unit table part by part; leaving the block without an error writes ``plan.json``.

    Args:
        folder_uri: of the table, such as ``output/units``.
        schema: of the units.
    """

    def __init__(self, folder_uri: str, schema: pa.Schema) -> None:
        self._folder, self._schema = folder_uri, schema
        self._parts = self._units = 0
        self._file = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self.facts: dict[str, Any] = {}
        """To remember with the plan."""

    def __enter__(self) -> "Writer":
        return self

    def add(self, units: pa.Table) -> int:
        """Add the units of the next part, at least one; return the part's number."""
        if not units.num_rows:
            raise ValueError("a part without units")
        if self._writer is None:
            file = self._file.enter_context(storage.open_output(_file(self._folder, self._parts)))
            self._writer = self._file.enter_context(
                pq.ParquetWriter(file, self._schema, compression="zstd")
            )
        self._writer.write_table(units.cast(self._schema), row_group_size=units.num_rows)
        self._parts += 1
        self._units += units.num_rows
        if self._parts % PARTS_PER_FILE == 0:
            self._file.close()
            self._writer = None
        return self._parts - 1

    @property
    def plan(self) -> Plan:
        """What was added so far."""
        return Plan(self._parts, self._units, self.facts)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)
        if kind is None:
            storage.write_json(storage.join(self._folder, PLAN), asdict(self.plan))


class Reader:
    """Reads the units of a part by its number; remembers the footer of the last file.

    Args:
        folder_uri: of the table.
    """

    def __init__(self, folder_uri: str) -> None:
        self._folder = folder_uri
        self._footer: tuple[str, pq.FileMetaData] | None = None

    def __call__(self, part: int, columns: list[str] | None = None) -> pa.Table:
        """Return the units of a part, with all columns or those that are named."""
        uri = _file(self._folder, part)
        if self._footer is None or self._footer[0] != uri:
            self._footer = (uri, read_footer(uri))
        with storage.open_input(uri, FOOTER_BYTES) as file:
            table = pq.ParquetFile(file, metadata=self._footer[1], pre_buffer=True)
            return table.read_row_group(part % PARTS_PER_FILE, columns=columns)


def plan_of(folder_uri: str) -> Plan | None:
    """Return the plan of a table; None where planning is not finished."""
    uri = storage.join(folder_uri, PLAN)
    return Plan(**storage.read_json(uri)) if storage.exists(uri) else None


def scan(folder_uri: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the units of every part in order."""
    read = Reader(folder_uri)
    plan = plan_of(folder_uri)
    for part in range(plan.parts if plan else 0):
        yield read(part, columns)


def _file(folder: str, part: int) -> str:
    base, _, name = folder.rpartition("/")
    return storage.join(base, part_path(name, part // PARTS_PER_FILE))
