"""Storage on a real S3 server: whole objects or none, one clear line for what goes wrong."""

import os
from pathlib import Path
from threading import Event, Thread

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import storage
from infra.errors import UserError
from tests.s3 import Server, Throttle

BIG = os.urandom(storage.BLOCK_BYTES * 2 + 12345)  # three parts of an upload


@pytest.fixture
def folder(s3_bucket: str, request: pytest.FixtureRequest) -> str:
    return f"{s3_bucket}/{request.node.name}"


def test_what_is_written_is_listed_read_and_removed(folder: str):
    files = {"a.txt": b"a", "sub/ein Häschen 兎 +&#.mp4": BIG, ".hidden/c.txt": b"c", "empty": b""}
    for name, data in files.items():
        storage.write_bytes(f"{folder}/{name}", data)
        assert storage.read_bytes(f"{folder}/{name}") == data
        assert storage.size_bytes(f"{folder}/{name}") == len(data)
        with storage.local_copy(f"{folder}/{name}") as path:
            assert path.read_bytes() == data
        assert not path.exists()
    shown = [f"{folder}/{name}" for name in sorted(files) if not name.startswith(".")]
    assert storage.list_files(folder) == shown
    assert storage.list_files(folder, (".mp4",)) == shown[2:]
    assert list(storage.list_sizes(folder).values()) == [1, 0, len(BIG)]
    assert storage.is_dir(folder)
    assert not storage.is_dir(f"{folder}/a.txt")
    storage.remove(f"{folder}/a.txt")
    assert not storage.exists(f"{folder}/a.txt")
    storage.remove(folder)
    assert storage.list_files(folder) == []
    storage.remove(folder)  # nothing there is nothing to do


NAMES = ["a::b", "a*", "a?c", "a[1]", "Song :: Live.mp4", "{a,b}", "~a", "a%20b", "a#1", "file:a"]


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_paths_are_names(name: str, remote: bool, folder: str, tmp_path: Path):
    """Nothing but what is named is read, listed or removed."""
    root = folder if remote else str(tmp_path)
    others = [f"{root}/{other}" for other in ("a", "abc", "a1", "axc/b", "a b", "b")]
    for other in others:
        storage.write_text(other, "other")
    storage.write_text(f"{root}/{name}/x", "mine")
    storage.write_text(f"{root}/{name}/deep::er/y*", "mine too")
    below = [f"{root}/{name}/deep::er/y*", f"{root}/{name}/x"]
    assert storage.list_files(f"{root}/{name}") == below
    assert storage.is_dir(f"{root}/{name}")
    assert storage.size_bytes(below[1]) == len(storage.read_text(below[1])) == 4
    assert storage.read_range(below[0], 5, 3) == b"too"
    with storage.local_copy(below[0]) as path:
        assert path.read_text() == "mine too"
    storage.remove(f"{root}/{name}/deep::er")
    assert storage.list_files(f"{root}/{name}") == below[1:]
    storage.remove(f"{root}/{name}")
    assert storage.list_files(root) == sorted(others)
    storage.remove(root)


def test_more_objects_than_a_request_removes(folder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("infra.objects.REMOVED_AT_ONCE", 2)
    for n in range(5):
        storage.write_text(f"{folder}/sub/{n}", "x")
    storage.write_text(f"{folder}/subway", "stays")
    storage.remove(f"{folder}/sub")
    assert storage.list_files(folder) == [f"{folder}/subway"]
    with pytest.raises(ValueError, match="a whole bucket"):
        storage.remove(folder.rsplit("/", 1)[0])


@pytest.mark.parametrize("size", [0, 1, len(BIG)])
def test_a_write_that_fails_leaves_the_old_object(folder: str, size: int):
    uri = f"{folder}/a.bin"
    storage.write_bytes(uri, b"old")
    with pytest.raises(TypeError), storage.open_output(uri) as file:
        file.writelines([BIG[:size], 3])  # pyright: ignore
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_files(folder) == [uri]


def test_parquet_is_read_by_ranges_and_by_arrow(folder: str):
    table = pa.table({"a": range(1000)})
    with storage.open_output(f"{folder}/t.parquet") as file:
        pq.write_table(table, file)
    with storage.open_input(f"{folder}/t.parquet") as file:
        assert pq.ParquetFile(file).read() == table
    filesystem, path = storage.arrow_filesystem(f"{folder}/t.parquet")
    assert pq.read_table(path, filesystem=filesystem) == table


def test_a_directory_is_uploaded(folder: str, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "sub" / "b").write_bytes(BIG)
    storage.upload_dir(tmp_path, folder)
    assert list(storage.list_sizes(folder).values()) == [1, len(BIG)]
    assert storage.read_bytes(f"{folder}/sub/b") == BIG


def _line(call, *arguments) -> Exception:
    with pytest.raises((UserError, storage.Unavailable)) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_missing_is_a_verdict(folder: str):
    for call in (storage.read_bytes, storage.size_bytes):
        error = _line(call, f"{folder}/no.mp4")
        assert str(error).endswith("no.mp4: not found")
        assert not isinstance(error, storage.Unavailable)
    nowhere = "s3://there-is-no-such-bucket/a"
    assert not storage.exists(nowhere)
    assert storage.list_files(nowhere) == []
    assert str(_line(storage.read_bytes, nowhere)) == f"{nowhere}: not found"
    assert "no such bucket" in str(_line(storage.make_dirs, nowhere))
    assert not isinstance(_line(storage.read_bytes, "s3://b/x"), storage.Unavailable)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_no_verdict(folder: str, fresh_s3, monkeypatch, name: str):
    monkeypatch.setenv(name, "wrong")
    for call in (storage.read_bytes, storage.size_bytes, storage.exists, storage.list_files):
        error = _line(call, f"{folder}/a.txt")
        assert "no permission" in str(error)
        assert isinstance(error, storage.Unavailable)
    with pytest.raises(storage.Unavailable, match="no permission"), storage.local_copy(folder):
        pass


def test_a_server_that_is_away_is_waited_for_and_then_no_verdict(
    s3_server: Server, folder: str, fresh_s3, monkeypatch
):
    uri = f"{folder}/a.bin"
    storage.write_bytes(uri, BIG)
    s3_server.kill()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    for call in (storage.read_bytes, storage.exists, storage.list_files):
        assert isinstance(_line(call, uri), storage.Unavailable)
    with pytest.raises(storage.Unavailable), storage.local_copy(uri):
        pass
    with pytest.raises(storage.Unavailable):
        storage.write_bytes(uri, b"new")
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    s3_server.start()
    assert storage.read_bytes(uri) == BIG


def test_a_server_that_throttles_is_asked_again_and_then_no_verdict(
    s3_server: Server, folder: str, fresh_s3, monkeypatch
):
    uri = f"{folder}/a.bin"
    throttle = Throttle(s3_server.environment["AWS_ENDPOINT_URL"], times=1)
    with throttle.address() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        storage.write_bytes(uri, BIG)
        assert storage.read_bytes(uri) == BIG
        assert storage.list_files(folder) == [uri]
        assert set(throttle.refused.values()) == {1}
        assert {request.split()[0] for request in throttle.refused} >= {"GET", "PUT", "POST"}
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert isinstance(_line(storage.size_bytes, f"{folder}/b.bin"), storage.Unavailable)


def test_a_file_that_is_rewritten_while_it_is_read_is_read_as_it_was(folder: str):
    uri, ended = f"{folder}/a.bin", Event()
    states = [bytes([number]) * 1000 for number in range(2)]
    storage.write_bytes(uri, states[0])

    def rewrite() -> None:
        while not ended.is_set():
            for state in states:
                storage.write_bytes(uri, state)

    writer = Thread(target=rewrite)
    writer.start()
    try:
        assert all(storage.read_bytes(uri) in states for _ in range(100))
    finally:
        ended.set()
        writer.join()


@pytest.mark.faults
def test_a_read_goes_on_where_the_server_went_away(s3_server: Server, folder: str):
    uri = f"{folder}/a.bin"
    storage.write_bytes(uri, BIG)
    with storage.open_input(uri) as file:
        assert file.read(1000) == BIG[:1000]
        s3_server.kill()
        back = Thread(target=s3_server.start)
        back.start()
        assert file.read() == BIG[1000:]
    back.join()
