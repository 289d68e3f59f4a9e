"""Search for near-duplicate clips across the files of clip tables, away from the driver.

::

    files ─tasks─▶ hashes ─one task─▶ flags (shared memory) ─▶ whoever judges a file

The driver holds 8 bytes a file. The one task compares the hashes of all clips together; what it
takes is in ray_jobs/scoring/README.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from data_prep import selection
from data_prep.filters import FiltersConfig
from data_prep.near_duplicates import near_duplicates
from infra import parquet, storage
from infra.config import Resources
from infra.errors import Unavailable, UserError
from ray_jobs.units import Parts

FILES_A_TASK = 64
"""Files whose hashes one task reads."""
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class NearDuplicates:
    """Which clips of a table look like earlier ones; small, and sent to every worker."""

    flags: ray.ObjectRef
    """bool, one for each clip that may be compared, file by file."""
    ends: ray.ObjectRef
    """int64 (files,): where the clips of each file end."""

    def places(self, file: int, source: str, filters: FiltersConfig) -> frozenset[int]:
        """Return the places of the near-duplicates among a file's clips.

        Args:
            file: number of the file in the table.
            source: its URI.
            filters: as given to :func:`search`.
        """
        ends = ray.get(self.ends)
        begin = int(ends[file - 1]) if file else 0
        flags = ray.get(self.flags)[begin : int(ends[file])]
        return near_places(hashes_of(source, filters)[0], flags)


def search(
    table: Parts,
    filters: FiltersConfig,
    earlier: Sequence[Parts],
    max_bits: int,
    resources: Resources,
) -> NearDuplicates:
    """Compare the clips of a table, in order, with those of earlier tables and before them.

    Args:
        table: whose clips are flagged.
        filters: the thresholds; a clip that they reject is not compared.
        earlier: finished tables, with the verdicts that they have.
        max_bits: see :func:`data_prep.near_duplicates.near_duplicates`.
        resources: what each task takes of the cluster.

    Raises:
        Unavailable: storage did not answer a task.
        UserError: a file cannot be read.
    """
    read: Any = ray.remote(num_cpus=resources.cpus_per_worker, num_returns=2)(_read)
    look: Any = ray.remote(num_cpus=resources.cpus_per_worker)(_look)
    counts, hashes = [], []
    for of, limits in [*((each, None) for each in earlier), (table, filters)]:
        for begin in range(0, of.count, FILES_A_TASK):
            some = range(begin, min(begin + FILES_A_TASK, of.count))
            count, found = read.remote(of, some, limits)
            counts.append(count)
            hashes.append(found)
    try:
        of_files = np.concatenate([np.zeros(0, np.int64), *ray.get(counts)])
    except RayTaskError as error:
        if isinstance(error.cause, Unavailable | UserError):
            raise error.cause from None
        raise
    files_before = sum(each.count for each in earlier)
    before = int(of_files[:files_before].sum())
    ends = np.cumsum(of_files[files_before:])
    return NearDuplicates(look.remote(max_bits, before, *hashes), ray.put(ends))


def hashes_of(source: str, filters: FiltersConfig | None) -> tuple[NDArray[np.int64], Hashes]:
    """Return the places and hashes of a file's clips that may be compared.

    Args:
        source: a file of a clip table.
        filters: the thresholds; None takes the verdicts that the file has.
    """
    columns = [f"clips.list.element.{name}" for name in ("reason", "scores", "phash")]
    all_places, all_hashes, before = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], 0
    with storage.open_input(source) as file:
        for batch in parquet.batches(pq.ParquetFile(file), 4096, columns):
            clips = batch.column("clips").flatten()
            places, values = selection.hashes(clips, filters)
            all_places.append(np.array(places, np.int64) + before)
            all_hashes.append(np.array(values, np.uint64))
            before += len(clips)
    return np.concatenate(all_places), np.concatenate(all_hashes)


def near_places(places: NDArray[np.int64], flags: NDArray[np.bool_]) -> frozenset[int]:
    """Return the places whose flag is set."""
    return frozenset(places[flags].tolist())


def _read(
    table: Parts, some: range, filters: FiltersConfig | None
) -> tuple[NDArray[np.int64], Hashes]:
    """Return how many hashes each of some files has, and all of them."""
    found = [hashes_of(table.uri(part), filters)[1] for part in some]
    return np.array([len(each) for each in found], np.int64), np.concatenate(found)


def _look(max_bits: int, before: int, *hashes: Hashes) -> NDArray[np.bool_]:
    """Return the flags of all hashes but the first `before`."""
    return near_duplicates(np.concatenate(hashes), max_bits)[before:]
