"""Planning: every input in one part, in order, cut by the inputs alone."""

from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from data_prep.schemas import MANIFEST
from infra import storage
from ray_jobs import unit_tables
from ray_jobs.preparation import planning
from ray_jobs.preparation.planning import PartCut, costs_ms, plan_parts

MB = 1_000_000


def rows(sizes: list[int | None], first: int = 0) -> pa.Table:
    made = [
        {"source_id": f"{n:064x}", "uri": f"{n}.mp4", "size_bytes": size}
        for n, size in enumerate(sizes, first)
    ]
    return pa.Table.from_pylist(made, MANIFEST)


def cut(sizes: list[int | None], at_once: int) -> list[list[int | None]]:
    whole = rows(sizes)
    maker = PartCut(sum(costs_ms(whole)))
    parts = []
    for at in range(0, len(sizes), at_once):
        parts += maker.push(whole.slice(at, at_once))
    parts += maker.rest()
    assert pa.concat_tables(parts).equals(whole)
    return [part["size_bytes"].to_pylist() for part in parts]


SIZES = st.lists(st.none() | st.integers(0, 5000 * MB), min_size=1, max_size=60)


@given(SIZES, st.integers(1, 60))
def test_parts_do_not_depend_on_how_rows_come(sizes: list[int | None], at_once: int) -> None:
    assert cut(sizes, at_once) == cut(sizes, len(sizes))


def test_a_small_corpus_is_a_part_a_video() -> None:
    assert cut([MB, None, 3 * MB], 2) == [[MB], [None], [3 * MB]]


def test_parts_of_a_large_corpus_cost_ten_minutes() -> None:
    sizes: list[int | None] = [*[20 * MB] * 60_000, 2000 * MB, MB, MB]
    parts = cut(sizes, 4096)
    ten_minutes = 1000 * planning.PART_S
    costs = [sum(costs_ms(rows(part))) for part in parts]
    assert len(parts) == 60_000 // 59 + 3  # 58.25 of 10.3 s each
    assert all(ten_minutes <= cost < ten_minutes + 10_300 for cost in costs[:-3])
    assert parts[-2:] == [[2000 * MB], [MB, MB]]  # the film is a part of its own


def test_text_ends_a_part_too(monkeypatch) -> None:
    monkeypatch.setattr(planning, "PART_TEXT_BYTES", 20)
    maker = PartCut(10**9)
    parts = [*maker.push(rows([0] * 10)), *maker.rest()]
    assert [part.num_rows for part in parts] == [4, 4, 2]


def test_a_second_run_takes_the_plan_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.mp4", "a.mp4", "c.txt"):
        (tmp_path / "in" / name).write_bytes(b"12")
    inputs, output = (str(tmp_path / "in"),), str(tmp_path / "out")
    plan = plan_parts(inputs, output, sample=1, seed=0)
    assert (plan.parts, plan.units) == (2, 2)
    assert plan.facts["sample"] in ([(0, 0)], [(1, 0)])
    (tmp_path / "in" / "d.mp4").touch()
    again = plan_parts(inputs, output, sample=1, seed=0)
    assert (again.parts, again.units) == (2, 2)
    units = list(unit_tables.scan(storage.join(output, planning.UNITS)))
    assert [storage.name(part["uri"][0].as_py()) for part in units] == ["a.mp4", "b.mp4"]
    assert [part["size_bytes"][0].as_py() for part in units] == [2, 2]
