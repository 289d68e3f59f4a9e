"""Units: every part once, whatever was done before, and nobody judged by an outage."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import storage
from infra.config import Resources
from infra.errors import UserError
from ray_jobs import part_files, unit_tables, units
from ray_jobs.part_files import part_path
from ray_jobs.units import Factory, Parts, Receipt

SCHEMA = pa.schema([("unit", pa.int64())])


@given(st.lists(st.integers(0, 10**9 - 1), min_size=2, max_size=20))
def test_names_sort_like_numbers(parts: list[int]) -> None:
    names = [part_path("clips", part) for part in sorted(parts)]
    assert names == sorted(names)
    assert len(set(names)) == len(set(parts))


@pytest.mark.parametrize("part", [-1, 10**9])
def test_a_number_that_no_name_holds_is_refused(part: int) -> None:
    with pytest.raises(ValueError, match="allowed are 0 to"):
        part_path("clips", part)


@given(st.sets(st.integers(0, 2500), max_size=30))
def test_done_is_what_is_there(parts: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        of = Parts(folder, "clips", 2400)
        for part in parts:
            storage.write_bytes(of.uri(part), b"x")
            storage.write_bytes(storage.join(folder, part_path("clips", part, ".json")), b"x")
        found = units.done(of)
        assert found.shape == (2400,)
        assert set(np.flatnonzero(found)) == {part for part in parts if part < 2400}


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), max_size=250))
def test_a_unit_table_gives_each_part_its_units(parts: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/units"
        with unit_tables.Writer(uri, SCHEMA) as writer:
            for number, part in enumerate(parts):
                assert writer.add(pa.table({"unit": part}, SCHEMA)) == number
            writer.facts["seen"] = 3
        plan = unit_tables.Plan(len(parts), sum(map(len, parts)), {"seen": 3})
        assert unit_tables.plan_of(uri) == plan
        found = [table["unit"].to_pylist() for table in unit_tables.scan(uri)]
        assert found == parts
        if parts:
            assert unit_tables.Reader(uri)(len(parts) - 1)["unit"].to_pylist() == parts[-1]


def _plan(uri: str, parts: list[pa.Table]) -> None:
    with unit_tables.Writer(uri, SCHEMA) as writer:
        for part in parts:
            writer.add(part)


def test_planning_that_fails_leaves_no_plan(tmp_path: Path) -> None:
    uri = str(tmp_path / "units")
    with pytest.raises(ValueError, match="without units"):
        _plan(uri, [*[pa.table({"unit": [1]}, SCHEMA)] * 101, SCHEMA.empty_table()])
    assert len(storage.list_files(uri)) == 1
    assert unit_tables.plan_of(uri) is None


@given(st.lists(st.integers(0, 9)), st.integers(1, 20))
def test_row_groups_hold_all_rows_in_order(sizes: list[int], most: int) -> None:
    groups = list(part_files.row_groups(sizes, int, most))
    assert [size for group in groups for size in group] == sizes
    assert all(sum(group[:-1]) < most <= sum(group) for group in groups[:-1])


def test_a_part_file_has_its_footer_and_its_failures(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.parquet")
    rows: list[int] = []
    tables = (rows.append(n) or pa.table({"unit": [n]}, SCHEMA) for n in range(3))
    footer = lambda: {"receipt": str(sum(rows))}  # noqa: E731
    assert part_files.write_tables(uri, SCHEMA, tables, footer) == 3
    assert (part_files.read_footer(uri).metadata or {})[b"receipt"] == b"3"
    assert pq.read_table(uri)["unit"].to_pylist() == [0, 1, 2]
    assert part_files.write_rows(uri, SCHEMA, []) == 0
    assert pq.read_table(uri).num_rows == 0
    for part in (1001, 7):
        part_files.write_failures(str(tmp_path), part, [{"unit": part}])
    part_files.write_failures(str(tmp_path), 8, [])
    assert list(part_files.failures(str(tmp_path))) == [{"unit": 7}, {"unit": 1001}]


class Tens:
    """A worker that writes ten times each unit of its part, and fails as it is told."""

    def __init__(self, parts: Parts, away: int = -1, bad: int = -1, broken: bool = False) -> None:
        if broken:
            raise UserError("weights: none")
        self._parts, self._away, self._bad = parts, away, bad
        self._units = unit_tables.Reader(storage.join(parts.output_uri, "units"))

    def __call__(self, part: int) -> Receipt:
        if part == self._away:
            raise storage.Unavailable("s3://b/x: no answer")
        if part == self._bad:
            raise UserError("part: bad")
        rows = [{"unit": 10 * row["unit"]} for row in self._units(part).to_pylist()]
        return {"rows": part_files.write_rows(self._parts.uri(part), SCHEMA, rows)}


def _parts(folder: Path, count: int) -> Parts:
    with unit_tables.Writer(str(folder / "units"), SCHEMA) as writer:
        for part in range(count):
            writer.add(pa.table({"unit": [part, part + 1]}, SCHEMA))
    return Parts(str(folder), "tens", count)


def _run(parts: Parts, actors: bool = False, **arguments: Any) -> list[Receipt]:
    factory = Factory(Tens, {"parts": parts, **arguments})
    return list(units.run(parts, factory, Resources(), actors=actors))


@pytest.mark.ray
@pytest.mark.parametrize("actors", [True, False])
def test_only_missing_parts_are_done(
    ray_session, tmp_path: Path, monkeypatch, actors: bool
) -> None:
    monkeypatch.setattr(units, "WAVE_PARTS", 2)
    parts = _parts(tmp_path, 5)
    storage.write_bytes(parts.uri(1), b"from an earlier run")
    receipts = _run(parts, actors)
    assert sorted(receipt["part"] for receipt in receipts) == [0, 2, 3, 4]
    assert {receipt["rows"] for receipt in receipts} == {2}
    assert pq.read_table(parts.uri(4))["unit"].to_pylist() == [40, 50]
    assert storage.read_bytes(parts.uri(1)) == b"from an earlier run"
    assert _run(parts, actors) == []


@pytest.mark.ray
def test_an_outage_stops_the_driver_and_judges_nothing(ray_session, tmp_path: Path) -> None:
    parts = _parts(tmp_path, 4)
    with pytest.raises(storage.Unavailable, match="s3://b/x: no answer"):
        _run(parts, away=2)
    with pytest.raises(UserError, match="part: bad"):
        _run(parts, bad=2)
    with pytest.raises(UserError, match="weights: none"):
        _run(parts, actors=True, broken=True)
    assert not units.done(parts)[2]
    _run(parts)
    assert units.done(parts).all()


def test_a_part_that_a_lost_worker_had_written_is_not_done_again(tmp_path: Path) -> None:
    parts = _parts(tmp_path, 2)
    storage.write_bytes(parts.uri(1), b"written")
    batch = {"data": np.array([0, 1])}
    receipts = units._once(batch, parts, Factory(Tens, {"parts": parts}))["receipt"]
    assert receipts == ['{"part": 0, "rows": 2}', '{"part": 1, "found": true}']
    assert storage.read_bytes(parts.uri(1)) == b"written"
