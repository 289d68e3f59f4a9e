"""The scale benchmark: its proxy counts, and tiny corpora go through every job."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import artifact, storage
from tests.benchmarks import scale
from tests.benchmarks.scaling import corpus, counting_proxy, growth, jobs, shard_corpus
from tests.benchmarks.scaling.meter import Measurement, Meter
from tests.s3 import Server

SIZES = (40, 80)


@pytest.fixture
def proxy(
    s3_server: Server, s3_bucket: str, fresh_s3: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A counting proxy before the server, which storage here goes through."""
    with counting_proxy.serve(s3_server.environment["AWS_ENDPOINT_URL"]) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield address


def test_the_proxy_passes_bytes_on_and_counts_requests(proxy: str, s3_bucket: str):
    data = os.urandom(20_000_000)  # more than one piece of an upload
    storage.write_bytes(f"{s3_bucket}/proxy/large", data)
    storage.write_bytes(f"{s3_bucket}/proxy/empty", b"")
    before = counting_proxy.counts_at(proxy)
    assert storage.read_bytes(f"{s3_bucket}/proxy/large") == data
    assert storage.list_sizes(f"{s3_bucket}/proxy") == {
        f"{s3_bucket}/proxy/empty": 0,
        f"{s3_bucket}/proxy/large": len(data),
    }
    assert not storage.exists(f"{s3_bucket}/proxy/none")
    counts = counting_proxy.counts_at(proxy) - before
    assert counts["GET"] == 1
    assert counts["LIST"] >= 1
    assert counts["HEAD"] >= 1
    assert set(counts) == {"GET", "LIST", "HEAD"}


def measured(values: list[float]) -> list[Measurement]:
    sizes = [10**n for n in range(3, 3 + len(values))]
    return [
        Measurement("phase", size, value, int(value), {"GET": int(value)})
        for size, value in zip(sizes, values, strict=True)
    ]


def test_growth_is_that_of_the_largest_two_sizes():
    phase = measured([500, 1000, 10_000])
    seconds = growth.QUANTITIES["seconds"]
    assert growth.exponent(phase, seconds) == pytest.approx(1)
    assert growth.per_video(phase, seconds) == pytest.approx(0.1)
    assert growth.projected(phase, seconds, 10**6) == pytest.approx(100_000)
    squared = measured([1, 100])
    assert growth.exponent(squared, seconds) == pytest.approx(2)
    assert growth.projected(squared, seconds, 10**5) == pytest.approx(10**4)
    assert growth.exponent(measured([0, 0]), seconds) == 0


@pytest.mark.ray
def test_tiny_corpora_go_through_every_job(
    proxy: str,
    s3_bucket: str,
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a node without the index
    found: list[Measurement] = []
    for videos in SIZES:
        folder = f"{s3_bucket}/scale{videos}"
        corpus.write_manifest(f"{folder}/{jobs.MANIFEST}", videos)
        shard_corpus.write_shards(f"{folder}/shards", videos * 1000, shard_bytes=1_000_000)
        for measure in jobs.JOBS.values():
            meter = Meter(proxy, videos)
            measure(folder, meter)
            found += meter.found
        counts = artifact.read(f"{folder}/prepare").counts
        assert counts["inputs"] == videos
        copies = int(videos > 50)
        assert counts["kept"] == videos - 8 - copies
        assert 0 < artifact.read(f"{folder}/select").counts["clips"] < counts["clips"]
    phases = growth.by_phase(found)
    assert all(len(phase) == len(SIZES) for phase in phases.values())
    ratios = scale.ratios(phases)
    assert ratios.keys() == scale.TARGETS.keys()
    assert 0 < ratios["loader_start_requests"] <= 50
    first, second = (each.total_requests for each in phases["loader: start"])
    assert first == second
    assert len(growth.table(phases)) == 1 + 3 * len(phases)


def test_a_manifest_has_its_sizes_without_a_request(tmp_path: Path):
    corpus.write_manifest(str(tmp_path / "films.parquet"), 3)
    from data_prep import manifest

    table = manifest.read((str(tmp_path / "films.parquet"),)).table
    [batch] = table.to_batches()
    sizes = manifest.with_sizes(batch)["size_bytes"].to_pylist()
    assert all(corpus.SMALLEST_BYTES <= size <= corpus.LARGEST_BYTES for size in sizes)
