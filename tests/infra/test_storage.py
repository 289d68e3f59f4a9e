"""Storage: whole files or none, and no path outside the root."""

from pathlib import Path

import pytest

from infra import storage
from infra.errors import UserError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    uri = str(tmp_path / "a.bin")
    storage.write_bytes(uri, b"old")
    with pytest.raises(TypeError), storage.open_output(uri) as file:
        file.writelines([b"half of the n", 3])  # pyright: ignore
    assert storage.read_bytes(uri) == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_files_are_listed_sorted_without_hidden_ones(tmp_path: Path):
    for name in ("b.mp4", "a.MP4", ".c.mp4", "d.txt", "sub/e.mp4", ".git/f.mp4"):
        storage.write_bytes(str(tmp_path / name), b"x")
    found = [
        file[len(str(tmp_path)) + 1 :] for file in storage.list_files(str(tmp_path), (".mp4",))
    ]
    assert found == ["a.MP4", "b.mp4", "sub/e.mp4"]
    assert storage.list_files(str(tmp_path / "none")) == []


def test_join_refuses_to_climb_out(tmp_path: Path):
    assert storage.join("s3://b/c/", "d", "e") == "s3://b/c/d/e"
    with pytest.raises(UserError, match=r"\.\."):
        storage.join(str(tmp_path), "../etc")


def test_names_with_spaces_and_other_letters(tmp_path: Path):
    uri = str(tmp_path / "ein Häschen 兎.mp4")
    storage.write_bytes(uri, b"x")
    assert storage.list_files(str(tmp_path)) == [uri]
    with storage.local_copy(uri) as path:
        assert path.read_bytes() == b"x"


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="gone: not found"):
        storage.read_bytes(str(tmp_path / "gone"))
