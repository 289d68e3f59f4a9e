"""Manifests: each input once and in order, or one line that says what to do."""

import csv
import json
import math
import subprocess
import sys
import tracemalloc
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import manifest
from data_prep.entries import ROW_BYTES_MAX
from data_prep.schemas import MANIFEST
from infra.errors import UserError


def _uris(found: manifest.Manifest) -> list[str]:
    return found.table["uri"].to_pylist()


def test_directory_is_searched_recursively_and_counts_the_rest(tmp_path: Path) -> None:
    for name in ("b.mp4", "A.MOV", "sub dir/ü.webm", "notes.txt", "sub dir/d.bmp", "c.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = manifest.read((str(tmp_path),))
    assert [Path(uri).name for uri in _uris(found)] == ["A.MOV", "b.mp4", "c.JPG", "ü.webm"]
    assert found.other_files == 2
    assert "2 other files" in found.notes[0]


def test_linked_folders_are_named_and_linked_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").write_bytes(b"film")
    films = tmp_path / "films"
    films.mkdir()
    (films / "more").symlink_to(tmp_path / "elsewhere")
    (films / "circle.mp4").symlink_to(films)
    with pytest.raises(
        UserError, match="an empty directory, and 2 linked folders are not followed"
    ):
        manifest.read((str(films),))
    (films / "b.mp4").symlink_to(tmp_path / "elsewhere" / "a.mp4")
    found = manifest.read((str(films),))
    assert _uris(found) == [str(films / "b.mp4")]
    (note,) = found.notes
    assert note.startswith(f"2 linked folders not followed ({films}/circle.mp4 first); give them")


def _write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            names = list(dict.fromkeys(name for row in rows for name in row))
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
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
    captions = found.table["caption"].to_pylist()
    assert list(zip(_uris(found), captions, strict=True)) == [
        (f"{tmp_path}/films/a.mp4", "a cat"),
        ("/abs/b.mp4", None),
        ("s3://bucket/c.mp4", "rain"),
    ]
    assert found.repeated_uris == 1
    assert found.table.schema == MANIFEST
    assert len(set(found.table["source_id"].to_pylist())) == 3


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_further_columns_are_carried_as_json(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"uri": "a.mp4", "licence": "CC-BY ü", "shot_by": 'A, "B"\nC'},
        {"uri": "b.mp4", "licence": None, "shot_by": None},
        {"uri": "c.mp4", "licence": "", "shot_by": "D"},
    ]
    found = manifest.read((_write(tmp_path / f"m{suffix}", rows),))
    assert found.table["extra"].to_pylist() == [
        '{"licence": "CC-BY ü", "shot_by": "A, \\"B\\"\\nC"}',
        None,
        '{"shot_by": "D"}',
    ]


def test_further_columns_keep_their_kinds(tmp_path: Path) -> None:
    row = {
        "uri": "a.mp4",
        "n": 3,
        "share": 0.1,
        "tags": [{"y": None}, {"y": "z"}],
        "gap": float("nan"),
    }
    for suffix in (".jsonl", ".parquet"):
        found = manifest.read((_write(tmp_path / f"m{suffix}", [row]),))
        extra = json.loads(found.table["extra"][0].as_py())
        assert extra == {"n": 3, "share": 0.1, "tags": [{"y": None}, {"y": "z"}]}
    when = {"uri": "a.mp4", "taken": datetime(2026, 1, 2, 3, 4, 5)}
    found = manifest.read((_write(tmp_path / "when.parquet", [when]),))
    assert found.table["extra"].to_pylist() == ['{"taken": "2026-01-02 03:04:05"}']


def test_a_long_manifest_costs_memory_by_its_text(tmp_path: Path) -> None:
    rows, text = 15_000, "x" * 400
    with (tmp_path / "m.jsonl").open("w") as file:
        file.writelines(f'{{"uri": "{n}.mp4", "caption": "{text}"}}\n' for n in range(rows))
    tracemalloc.start()
    try:
        before = pa.total_allocated_bytes()
        found = manifest.read((str(tmp_path / "m.jsonl"),))
        _, peak = tracemalloc.get_traced_memory()
        assert peak < (8 << 20) + 250 * rows  # a few rows at once, and the ids that were seen
        assert pa.total_allocated_bytes() - before < 700 * rows
    finally:
        tracemalloc.stop()
    assert found.table.num_rows == rows


def test_a_streamed_manifest_costs_some_bytes_a_row(tmp_path: Path) -> None:
    rows = 40_000
    with (tmp_path / "m.jsonl").open("w") as file:
        file.writelines(f'{{"uri": "{n}.mp4", "caption": "{"x" * 200}"}}\n' for n in range(rows))
    counts = manifest.Counts()
    tracemalloc.start()
    try:
        found = 0
        for batch in manifest.stream((str(tmp_path / "m.jsonl"),), counts):
            found += batch.num_rows
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == counts.inputs == rows
    assert peak < (16 << 20) + 50 * rows


def test_sizes_come_from_listings_and_are_asked_for_elsewhere(tmp_path: Path) -> None:
    for name in ("a.mp4", "in/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    table = _write(tmp_path / "m.jsonl", [{"uri": n} for n in ("a.mp4", "no.mp4", "x://y.mp4")])
    [batch] = manifest.stream((str(tmp_path / "in"), table), manifest.Counts())
    assert batch["size_bytes"].to_pylist() == [5, None, None, None]
    assert manifest.with_sizes(batch)["size_bytes"].to_pylist() == [5, 5, None, None]
    assert manifest.with_sizes(batch).schema == MANIFEST


def test_what_lies_below_the_output_is_no_input(tmp_path: Path) -> None:
    for name in ("a.mp4", "out/thumbnail.mp4", "out2/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    counts = manifest.Counts()
    [batch] = manifest.stream((str(tmp_path),), counts, leave_out=str(tmp_path / "out"))
    assert [Path(uri).name for uri in batch["uri"].to_pylist()] == ["a.mp4", "b.mp4"]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_every_row_is_an_entry_or_a_repeat(tmp_path_factory, numbers: list[int]) -> None:
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    found = manifest.read((_write(path, [{"uri": f"{n}.mp4"} for n in numbers]),))
    assert found.table.num_rows + found.repeated_uris == len(numbers)
    assert [Path(uri).stem for uri in _uris(found)] == [str(n) for n in dict.fromkeys(numbers)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.jsonl", '{"uri": "a.mp4"}\n{"uri": \n', "line 2: not JSON"),
        ("m.jsonl", '["a.mp4"]\n', "line 1: holds a list"),
        ("m.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("m.jsonl", '{"url": "a.mp4"}\n', "no column uri (found: url)"),
        ("m.jsonl", '{"uri": ""}\n', "line 1: uri is ''"),
        ("m.jsonl", '{"uri": "a.mp4", "caption": 3}\n', "caption is 3"),
        ("m.jsonl", "\n", "no rows"),
        ("m.jsonl", '{"uri": "a.mp4", "caption": "' + "x" * 2**20 + '"}', "longer than 1048576"),
        ("m.jsonl", '{"uri": "a.mp4", "x": "' + "ü" * 600_000 + '"}', "allowed are 1048576 a row"),
        ("m.csv", "uri,caption\na.mp4,b,c\n", "row 1: more cells than columns"),
        ("m.csv", "uri\n" + "x" * 200_000, "near line 1: field larger than field limit"),
        ("m.csv", "uri\n" + "x," * 2**20, "line 2: longer than 1048576"),
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


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_number_that_is_none_costs_its_cell(tmp_path: Path, ending: str, capsys) -> None:
    rows = [
        {"uri": "a.mp4", "caption": None, "stats": {"mean": 1.0, "top": [2.0]}, "score": 1.5},
        {"uri": "b.mp4", "caption": None, "stats": {"mean": math.nan, "top": [math.inf, 2.0]},
         "score": -math.inf},
    ]  # fmt: skip
    path = tmp_path / f"list.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        captions = pa.array([math.nan, math.nan])  # as pandas writes a column without any
        table = pa.Table.from_pylist(rows)
        pq.write_table(table.set_column(1, "caption", captions), path)
    found = manifest.read((str(path),)).table
    assert found["caption"].to_pylist() == [None, None]
    first, second = (json.loads(text) for text in found["extra"].to_pylist())
    assert first == {"stats": {"mean": 1.0, "top": [2.0]}, "score": 1.5}
    assert second == {"stats": {"mean": None, "top": [None, 2.0]}}
    said = capsys.readouterr().err
    assert f"{2 if ending == 'jsonl' else 4} cells hold NaN or infinite numbers" in said
    assert ("line 2, column stats" if ending == "jsonl" else "row 1, column caption") in said


def test_errors_are_short_whatever_the_value(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    for row in ({"uri": ["x" * 100_000]}, {"uri": "a.mp4", "caption": list(range(100_000))}):
        path.write_text(json.dumps(row))
        with pytest.raises(UserError) as caught:
            manifest.read((str(path),))
        assert len(str(caught.value)) < 400 + len(str(path))


LONG = 40 * ROW_BYTES_MAX
"""Letters of a text that is longer than a row may be."""
BOMBS = {
    "shared by all rows": ([LONG] * 40, {"dictionary_pagesize_limit": 1 << 30}, "rows 1 to 40"),
    "repeated": ([LONG] * 40, {"use_dictionary": False}, "rows 1 to 40"),
    "among short ones": ([9] * 90 + [LONG] * 9, {"dictionary_pagesize_limit": 1 << 30}, "row 91"),
    "one too long": ([9] * 5 + [ROW_BYTES_MAX + 1], {}, "row 6"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_table_cannot_stand_for_gigabytes(tmp_path: Path, bomb: str, nested: bool) -> None:
    """Each took gigabytes before its rows were looked at; now a fresh process reads it in 0.4."""
    lengths, how, where = BOMBS[bomb]
    texts: list = ["x" * length for length in lengths]
    if nested:
        texts = [[{"tag": text}] for text in texts]
    uris = [f"{number}.mp4" for number in range(len(texts))]
    file = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"uri": uris, "text": texts}), file, compression="zstd", **how)
    del texts
    assert file.stat().st_size < 200_000
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(file)], capture_output=True, text=True, check=True
    )
    message, peak_mb = done.stdout.splitlines()
    assert f"bomb.parquet, {where}: column text" in message
    assert "allowed are" in message
    assert len(message) < 400
    assert int(peak_mb) < 400


_READ = """
import resource, sys
from data_prep import manifest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    manifest.read((sys.argv[1],))
except Exception as error:
    print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_texts_that_rows_share_come_back_whole(tmp_path: Path) -> None:
    tags = [["a"], [], None]
    rows = [
        {"uri": f"/f/{n}.mp4", "caption": "ab"[n % 2] * 300_000, "tags": tags[n % 3]}
        for n in range(300)
    ]
    found = manifest.read((_write(tmp_path / "shared.parquet", rows),)).table
    assert found["caption"].to_pylist() == [row["caption"] for row in rows]
    assert [json.loads(text or "{}").get("tags") for text in found["extra"].to_pylist()] == [
        row["tags"] for row in rows
    ]
