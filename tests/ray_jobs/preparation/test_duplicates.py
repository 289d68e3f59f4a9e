"""Duplicates: the first video of the same bytes counts, however parts and shares are cut."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.schemas import CLIP_TABLE
from infra.config import Resources
from ray_jobs.clip_tables import add_up, tally
from ray_jobs.part_files import write_tables
from ray_jobs.preparation import duplicates, part_footer
from ray_jobs.preparation.part_footer import PartFooter, pack
from ray_jobs.units import Parts

VIDEOS = st.lists(
    st.lists(st.none() | st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=6
)


def row(video: int | None, number: int) -> dict[str, Any]:
    clip = {
        **{"clip_id": f"{number:032x}", "start_s": 0.0, "end_s": 2.0, "start_frame": 0},
        **{"end_frame": 50, "status": "kept", "reason": None, "scores": {}},
    }
    made = {
        **{"source_id": f"{number:064x}", "uri": f"{number}.mp4", "cpu_seconds": 1.5},
        **{
            "peak_rss_bytes": number,
            "media": "video",
            "duration_s": 2.0,
            "reason": None,
            "status": "kept",
        },
        **{"video_id": f"{video or 0:032x}", "clips": [clip, clip]},
    }
    if video is None:
        made |= {"status": "quarantined", "reason": "empty", "clips": [], "video_id": None}
    return made


def table_of(folder: str, parts: Sequence[Sequence[int | None]]) -> Parts:
    of = Parts(folder, "clips", len(parts))
    number = 0
    for part, videos in enumerate(parts):
        rows = [row(video, number + n) for n, video in enumerate(videos)]
        number += len(videos)
        ids = [r["video_id"] if r["status"] != "quarantined" else None for r in rows]
        footer = PartFooter(add_up([tally(r) for r in rows]), pack(ids))
        tables = [pa.Table.from_pylist([r], CLIP_TABLE) for r in rows]
        write_tables(of.uri(part), CLIP_TABLE, tables, footer.metadata)
    return of


def copies_of(parts: Sequence[Sequence[int | None]]) -> list[tuple[int, int]]:
    seen, copies = set[int](), []
    for part, videos in enumerate(parts):
        for n, video in enumerate(videos):
            if video in seen:
                copies.append((part, n))
            elif video is not None:
                seen.add(video)
    return copies


def resolve_here(of: Parts, shares: int) -> dict[str, Any]:
    """Do what `resolve` does, without Ray."""
    read = [duplicates._read(of, part, part + 1, shares) for part in range(of.count)]
    accounts, *dealt = zip(*read, strict=True)
    places = np.concatenate([duplicates._copies(*share) for share in dealt])
    before, after = duplicates._rewrite(of, list(duplicates._by_part(places)))
    return add_up([duplicates._less(add_up(list(accounts)), before), after])


@given(VIDEOS, st.integers(1, 3))
def test_copies_are_filtered_once_and_for_all(parts, shares: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        of = table_of(folder, parts)
        summary = resolve_here(of, shares) if copies_of(parts) else None
        rows = [pq.read_table(of.uri(part)).to_pylist() for part in range(of.count)]
        found = [
            (part, n)
            for part, made in enumerate(rows)
            for n, one in enumerate(made)
            if one["reason"] == "duplicate"
        ]
        assert found == copies_of(parts)
        if summary is None:
            return
        assert summary == add_up([tally(one) for made in rows for one in made])
        files = [Path(of.uri(part)).read_bytes() for part in range(of.count)]
        assert resolve_here(of, shares) == summary  # again, as after a kill
        assert [Path(of.uri(part)).read_bytes() for part in range(of.count)] == files


def test_a_part_without_copies_is_left_alone(tmp_path: Path) -> None:
    of = table_of(str(tmp_path), [[1, 2], [3], [2]])
    before = Path(of.uri(1)).stat().st_mtime_ns
    resolve_here(of, 1)
    assert Path(of.uri(1)).stat().st_mtime_ns == before
    footer = part_footer.read(of.uri(2))
    assert (footer.copies, footer.accounts["kept"]) == ((0,), 1)
    assert footer.without_copies is not None
    assert footer.without_copies["filtered"] == {"duplicate": 1}


@pytest.mark.ray
def test_shares_and_tasks_do_not_matter(ray_session, tmp_path: Path, monkeypatch) -> None:
    parts = [[1, 2, None], [2], [1, 4], [None]]
    here = resolve_here(table_of(str(tmp_path / "here"), parts), 1)
    monkeypatch.setattr(duplicates, "PARTS_A_TASK", 3)
    monkeypatch.setattr(duplicates, "SHARE_VIDEOS", 3)
    assert duplicates.resolve(table_of(str(tmp_path / "ray"), parts), 7, Resources()) == here
