"""Search for videos that are the same bytes: the first in the inputs' order counts, in all parts.

Tasks read the parts' footers and deal the videos' ids out into shares by their digests; a task a
share finds the copies in it; and parts that hold some are written again without their clips. The
driver holds eight bytes a copy. Each step gives the same when it is done twice, so a run that is
killed here starts the search again and rewrites what is left.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from data_prep.schemas import CLIP_TABLE
from data_prep.seen import DTYPE, Digests
from infra import parquet, storage
from infra.config import Resources
from infra.log import logger
from ray_jobs.clip_tables import add_up, tallies
from ray_jobs.part_files import FILES_AT_ONCE, write_tables
from ray_jobs.preparation import part_footer
from ray_jobs.units import Parts

PARTS_A_TASK = 250
"""Parts whose footers one task reads: of one folder, which it lists for their sizes."""
REWRITTEN_A_TASK = 16
SHARE_VIDEOS = 4_000_000
"""Videos whose ids one task compares, about: 24 bytes each, and as much again to sort them."""
_ROWS_AT_ONCE = 64
Places = NDArray[np.int64]
"""Part and row of videos, (n, 2)."""


def resolve(parts: Parts, videos: int, resources: Resources) -> dict[str, Any]:
    """Filter copies in all parts of a clip table; return the accounts of the whole table.

    Args:
        parts: of the table, all done.
        videos: rows of all parts.
        resources: what each task takes of the cluster.

    Raises:
        storage.Unavailable: storage did not answer a task.
    """
    each: dict[str, Any] = {"num_cpus": resources.cpus_per_worker}
    shares = 1 + videos // SHARE_VIDEOS
    read = ray.remote(**each, num_returns=1 + shares)(_read)
    look = ray.remote(**each)(_copies)
    rewrite = ray.remote(**each)(_rewrite)
    begins = range(0, parts.count, PARTS_A_TASK)
    found = [read.remote(parts, at, min(at + PARTS_A_TASK, parts.count), shares) for at in begins]
    accounts, *dealt = zip(*found, strict=True)
    copies = np.concatenate(ray.get([look.remote(*share) for share in dealt]))
    analysed = add_up(ray.get(list(accounts)))
    if not len(copies):
        return analysed
    logger.info(f"prepare: {len(copies)} videos are copies of others")
    todo = list(_by_part(copies))
    pieces = [todo[at : at + REWRITTEN_A_TASK] for at in range(0, len(todo), REWRITTEN_A_TASK)]
    changes = ray.get([rewrite.remote(parts, piece) for piece in pieces])
    before, after = (add_up([change[n] for change in changes]) for n in (0, 1))
    return add_up([_less(analysed, before), after])


def as_duplicate(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a video whose bytes are already in the table: filtered, without clips."""
    return {**row, "status": "filtered", "reason": "duplicate", "clips": []}


def _read(parts: Parts, begin: int, end: int, shares: int) -> tuple[Any, ...]:
    """Return the accounts of some parts, and their digests and places dealt out into shares."""
    uris = [parts.uri(part) for part in range(begin, end)]
    folders = dict.fromkeys(uri.rpartition("/")[0] for uri in uris)
    sizes = {file: size for folder in folders for file, size in storage.walk(folder)}
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        footers = list(pool.map(part_footer.read, uris, (sizes[uri] for uri in uris)))
    digests = np.concatenate([footer.digests for footer in footers])
    places = np.concatenate(
        [_places(begin + n, len(footer.digests)) for n, footer in enumerate(footers)]
    )
    there = digests != b""
    digests, places = digests[there], places[there]
    share = digests.view(np.uint8).reshape(-1, DTYPE.itemsize)[:, :4].copy().view("<u4")[:, 0]
    dealt = ((digests[share % shares == n], places[share % shares == n]) for n in range(shares))
    return (add_up([footer.accounts for footer in footers]), *dealt)


def _places(part: int, rows: int) -> Places:
    return np.stack([np.full(rows, part, np.int64), np.arange(rows, dtype=np.int64)], 1)


def _copies(*dealt: tuple[Digests, Places]) -> Places:
    """Return where the videos of a share are that came before; pieces in the inputs' order."""
    digests = np.concatenate([piece[0] for piece in dealt])
    places = np.concatenate([piece[1] for piece in dealt])
    again = np.ones(len(digests), np.bool_)
    again[np.unique(digests, return_index=True)[1]] = False
    return places[again]


def _by_part(copies: Places) -> Iterator[tuple[int, list[int]]]:
    copies = copies[np.lexsort((copies[:, 1], copies[:, 0]))]
    parts, begins = np.unique(copies[:, 0], return_index=True)
    for part, rows in zip(parts.tolist(), np.split(copies[:, 1], begins[1:]), strict=True):
        yield part, rows.tolist()


def _rewrite(
    parts: Parts, todo: Sequence[tuple[int, list[int]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write parts again with some rows as copies; return their accounts as analysed and now."""
    before, after = [], []
    for part, rows in todo:
        footer = part_footer.read(parts.uri(part))
        if footer.without_copies is None or footer.copies != tuple(rows):
            footer = _rewrite_part(parts.uri(part), rows, footer)
        before.append(footer.accounts)
        after.append(footer.without_copies)
    return add_up(before), add_up(after)


def _rewrite_part(
    uri: str, copies: list[int], was: part_footer.PartFooter
) -> part_footer.PartFooter:
    accounts: list[dict[str, Any]] = []
    again = np.array(copies)

    def tables(file: pq.ParquetFile) -> Iterator[pa.Table]:
        for batch in parquet.batches(file, _ROWS_AT_ONCE):
            inside = again[(len(accounts) <= again) & (again < len(accounts) + batch.num_rows)]
            made = _with_duplicates(batch, (inside - len(accounts)).tolist())
            for rows in made.to_batches():
                accounts.extend(tallies(rows))
            yield made

    def footer() -> part_footer.PartFooter:
        return part_footer.PartFooter(was.accounts, was.videos, tuple(copies), add_up(accounts))

    with storage.open_input(uri) as source:
        write_tables(uri, CLIP_TABLE, tables(pq.ParquetFile(source)), lambda: footer().metadata())
    return footer()


def _with_duplicates(rows: pa.RecordBatch, places: list[int]) -> pa.Table:
    """Return rows of the clip table, those at `places`, in order, as duplicates."""
    pieces, begin = [], 0
    for place in places:
        pieces.append(pa.Table.from_batches([rows.slice(begin, place - begin)]).cast(CLIP_TABLE))
        [row] = rows.slice(place, 1).to_pylist()
        pieces.append(pa.Table.from_pylist([as_duplicate(row)], CLIP_TABLE))
        begin = place + 1
    pieces.append(pa.Table.from_batches([rows.slice(begin)]).cast(CLIP_TABLE))
    return pa.concat_tables(pieces)


def _less(total: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return accounts without those of some rows; the highest memory stays."""
    left: dict[str, Any] = {}
    for key, value in total.items():
        if isinstance(value, dict):
            left[key] = dict(Counter(value) - Counter(part[key]))
        else:
            left[key] = value if key == "peak_rss_bytes" else value - part[key]
    return left
