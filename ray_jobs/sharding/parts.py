"""Parts of a shard artifact: a worker writes a shard and its account; at the end, the index.

A part is a shard, ``tokens/000000/part-000000000.parquet``, and what is said of it in numbers,
``accounts/000000/part-000000000.json``, written first. Clips that failed are in ``failed/``.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import ray

from data_prep import index, shards
from data_prep.sampling import TRAIN, VALIDATION
from data_prep.shards import Row, ShardSpec
from infra import storage
from ray_jobs.part_files import part_path, write_failures
from ray_jobs.sharding.source import Failure
from ray_jobs.sharding.tasks import in_order
from ray_jobs.units import Parts, Receipt

PARTS_A_TASK = 32


class Maker(Protocol):
    """Makes the rows of a part."""

    spec: ShardSpec
    notes: Counter[str]
    """What is counted of the rows of the last part besides."""

    def rows(self, part: int) -> Iterator[Row | Failure]:
        """Yield the part's rows in order, and clips that failed."""
        ...


@dataclass
class Account:
    """What shards hold, in numbers."""

    clips: int = 0
    frames: int = 0
    failed: int = 0
    """Clips of which all or the last frames could not be read."""
    splits: Counter[str] = field(default_factory=Counter)
    """Clips."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Clips by ``WIDTHxHEIGHT`` of their windows."""
    windows: Counter[int] = field(default_factory=Counter)
    """By their frames."""
    without_windows: int = 0
    """Clips too short for any window."""
    notes: Counter[str] = field(default_factory=Counter)
    """What a maker counts besides."""
    codes: Counter[int] = field(default_factory=Counter)
    """How often each code occurs."""

    def add(self, row: Row, spec: ShardSpec, is_new: bool) -> None:
        """Count a row, the first of its clip or another."""
        self.frames += row["frames"]
        for window in row["windows"]:
            self.windows[window["frames"]] += 1
            if spec.kind == "tokens":
                codes, counts = np.unique(
                    spec.window(window["data"], window["shape"]), return_counts=True
                )
                self.codes.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        if is_new:
            self.clips += 1
            self.splits[row["split"]] += 1
            self.without_windows += not row["windows"]
            for window in row["windows"][:1]:
                height, width = spec.rows_and_columns(window["shape"])
                self.sizes[f"{width}x{height}"] += 1

    def merge(self, other: Self) -> None:
        """Add what another counted."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Return an account as it was before JSON made texts of numbers."""
        for name in ("windows", "codes"):
            tree[name] = {int(key): value for key, value in tree[name].items()}
        account = cls()
        for name, value in tree.items():
            setattr(account, name, Counter(value) if isinstance(value, dict) else value)
        return account

    def summary(self) -> dict[str, Any]:
        """Return what all kinds of shards say in their summary."""
        return {
            "clips": self.clips,
            "frames": self.frames,
            TRAIN: self.splits[TRAIN],
            VALIDATION: self.splits[VALIDATION],
            "failed": self.failed,
        }


class PartWriter:
    """Writes a part by its number; one a worker process.

    Args:
        parts: of the job.
        maker: of rows.
    """

    def __init__(self, parts: Parts, maker: Maker) -> None:
        self._parts, self._maker = parts, maker

    def __call__(self, part: int) -> Receipt:
        """Write a part's failures, its account and, last, its shard."""
        spec, account, failures = self._maker.spec, Account(), list[dict[str, Any]]()
        last = None
        with (
            storage.open_output(self._parts.uri(part)) as file,
            shards.Writer(file, spec) as writer,
        ):
            for row in self._maker.rows(part):
                if isinstance(row, Failure):
                    failures.append(asdict(row))
                    continue
                account.add(row, spec, is_new=row["clip_id"] != last)
                last = row["clip_id"]
                writer.add(row)
            account.failed = len(failures)
            account.notes = self._maker.notes
            # before the part appears, so that neither is ever lost
            write_failures(self._parts.output_uri, part, failures)
            storage.write_json(_account(self._parts.output_uri, part), vars(account))
        return {"rows": writer.rows, "failed": account.failed}


def finish(parts: Parts) -> Account:
    """Write the index of all parts and return what they hold."""
    total = Account()
    numbers = range(0, parts.count, PARTS_A_TASK)
    found = in_order(
        _gather.remote(parts, range(first, min(first + PARTS_A_TASK, parts.count)))
        for first in numbers
    )

    def tables() -> Iterator[pa.Table]:
        for table, account in found:
            total.merge(account)
            yield table

    index.write(parts.output_uri, tables())
    return total


@ray.remote(num_cpus=1)
def _gather(parts: Parts, numbers: range) -> tuple[pa.Table, Account]:
    """Return the index's rows of some parts, and what they hold."""
    files, total = [], Account()
    for part in numbers:
        uri = parts.uri(part)
        files.append((uri[len(parts.output_uri) + 1 :], storage.size_bytes(uri)))
        total.merge(Account.from_json(storage.read_json(_account(parts.output_uri, part))))
    return index.describe(parts.output_uri, files), total


def _account(output_uri: str, part: int) -> str:
    return storage.join(output_uri, part_path("accounts", part, ".json"))
