"""Manifests: each input once and in order, or one line that says what to do."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import manifest
from infra.errors import UserError


def test_directory_is_searched_recursively_and_counts_the_rest(tmp_path: Path) -> None:
    for name in ("b.mp4", "A.MOV", "sub dir/ü.webm", "notes.txt", "sub dir/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = manifest.read((str(tmp_path),))
    assert [Path(e.uri).name for e in found.entries] == ["A.MOV", "b.mp4", "ü.webm"]
    assert found.other_files == 2
    assert "2 other files" in found.notes[0]


def _write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".csv":
        lines = [f"{row['uri']},{row.get('caption') or ''}" for row in rows]
        path.write_text("uri,caption\n" + "\n".join(lines) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_tables_read_alike(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"uri": "films/a.mp4", "caption": "a cat"},
        {"uri": "/abs/b.mp4", "caption": None},
        {"uri": "s3://bucket/c.mp4", "caption": "rain"},
        {"uri": "./films/../films/a.mp4", "caption": "again"},
    ]
    found = manifest.read((_write(tmp_path / f"m{suffix}", rows),))
    assert [(e.uri, e.caption) for e in found.entries] == [
        (f"{tmp_path}/films/a.mp4", "a cat"),
        ("/abs/b.mp4", None),
        ("s3://bucket/c.mp4", "rain"),
    ]
    assert found.repeated_uris == 1
    assert found.table()["source_id"].to_pylist() == sorted(
        set(found.table()["source_id"].to_pylist()),
        key=found.table()["source_id"].to_pylist().index,
    )


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_every_row_is_an_entry_or_a_repeat(tmp_path_factory, numbers: list[int]) -> None:
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    found = manifest.read((_write(path, [{"uri": f"{n}.mp4"} for n in numbers]),))
    assert len(found.entries) + found.repeated_uris == len(numbers)
    assert [Path(e.uri).stem for e in found.entries] == [str(n) for n in dict.fromkeys(numbers)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.jsonl", '{"uri": "a.mp4"}\n{"uri": \n', "line 2: not JSON"),
        ("m.jsonl", '["a.mp4"]\n', "line 1: holds a list"),
        ("m.jsonl", '{"url": "a.mp4"}\n', "no column uri (found: url)"),
        ("m.jsonl", '{"uri": ""}\n', "line 1: uri is ''"),
        ("m.jsonl", '{"uri": "a.mp4", "caption": 3}\n', "caption is 3"),
        ("m.jsonl", "\n", "no rows"),
        ("m.csv", "path\na.mp4\n", "no column uri (found: path)"),
        ("m.csv", "", "no column uri"),
        ("m.parquet", "nonsense", "not Parquet"),
        ("m.txt", "a.mp4", "neither a video nor a manifest"),
    ],
)
def test_bad_tables_are_one_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        manifest.read((str(tmp_path / name),))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_empty_inputs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        manifest.read((str(tmp_path / "no"),))
    with pytest.raises(UserError, match="not found"):
        manifest.read((str(tmp_path / "no.jsonl"),))
    with pytest.raises(UserError, match="an empty directory; put files ending in"):
        manifest.read((str(tmp_path),))
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="none of its 1 files is a video"):
        manifest.read((str(tmp_path),))
