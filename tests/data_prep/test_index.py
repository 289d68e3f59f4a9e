"""The index of shards: few requests however many shards, and the same rows as the shards."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep import index, shards
from data_prep.index import Index
from data_prep.loader import Loader, Mix
from data_prep.shards import ShardSpec
from infra import storage
from infra.errors import UserError
from tests import shard_artifacts
from tests.s3 import Server, Throttle
from tests.shard_artifacts import FRAMES, row, tokens_spec, window


def tokens(folder: Path | str, shards_: int, clips: int = 3) -> str:
    """Write shards of codes, a row group a clip."""
    files = [
        [
            row(
                f"c{file}-{clip}",
                [window(np.full((2, 3, 4), file % 200, np.uint8), 5, 5 * n) for n in range(4)],
                split="validation" if clip == 0 else "train",
                text=np.arange(clip, dtype=np.int32).tobytes(),
            )
            for clip in range(clips)
        ]
        for file in range(shards_)
    ]
    return shard_artifacts.write(folder, tokens_spec(), files, per_group=1)


def test_a_row_group_is_read_as_the_file_has_it(tmp_path: Path):
    uri = tokens(tmp_path, 3)
    read = Index(uri)
    assert [len(read.groups_of(file)) for file in range(3)] == [3, 3, 3]
    for file, path in enumerate(read.files["path"].to_pylist()):
        whole = pq.ParquetFile(f"{uri}/{path}")
        for number, group in enumerate(read.groups_of(file)):
            assert read.read(group).equals(whole.read_row_group(number))
    (shape, (groups, counts)), = read.counts("validation").items()  # fmt: skip
    assert shape == (5, 3, 4)
    assert groups.tolist() == [0, 3, 6]
    assert counts.tolist() == [4, 4, 4]
    assert read.counts()[shape][1].sum() == 36
    assert read.spec == tokens_spec()


def test_a_footer_longer_than_the_first_read_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index, "_TAIL_BYTES", 100)
    read = Index(tokens(tmp_path, 1))
    assert read.read(2)["clip_id"].to_pylist() == ["c0-2"]


def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path):
    one, other = (
        shard_artifacts.write(tmp_path / name, spec, [[]])
        for name, spec in (("a", tokens_spec()), ("b", tokens_spec(codec_fingerprint="d")))
    )
    Path(other, "tokens/part-00000.parquet").rename(f"{one}/tokens/part-00001.parquet")
    with pytest.raises(UserError, match="other settings"):
        index.build(one, "tokens")


@pytest.mark.parametrize(("version", "kind"), [("3", "pixels"), ("3", "tokens")])
def test_shards_of_an_earlier_version_are_refused(tmp_path: Path, version: str, kind: str):
    metadata = {b"longtake.schema": kind.encode(), b"longtake.version": version.encode()}
    with pytest.raises(ValueError, match="version 3; readable is 4: run the job that made them"):
        ShardSpec.read(metadata, "part-0.parquet")
    with pytest.raises(ValueError, match="holds clips; expected are shards"):
        ShardSpec.read({b"longtake.schema": b"clips"}, "part-0.parquet")
    uri = tokens(tmp_path, 1)
    Path(uri, "index.arrow").unlink()
    with pytest.raises(UserError, match="not found; made by an earlier version"):
        Index(uri)


def test_row_groups_are_cut_by_bytes(tmp_path: Path):
    path = tmp_path / "s.parquet"
    with shards.Writer(str(path), FRAMES, row_group_bytes=3000) as writer:
        for number in range(7):  # 8 x 8 x 3 bytes a frame and 256 beside
            writer.add(row(f"c{number}", [window(np.zeros((6, 8, 8, 3), np.uint8), 6)]))
    held = shards.held(pq.read_metadata(path))
    assert [group["train"][6, 8, 8] for group in held] == [3, 3, 1]
    assert not pq.read_metadata(path).row_group(0).column(0).is_stats_set


@pytest.mark.usefixtures("fresh_s3")
@pytest.mark.parametrize("count", [4, 40])
def test_requests_do_not_grow_with_the_shards(
    s3_server: Server, s3_bucket: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    uri = tokens(f"{s3_bucket}/index-{count}", count)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    throttle = Throttle(s3_server.environment["AWS_ENDPOINT_URL"], times=0)
    with throttle.address() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        loader = Loader(uri, "train", [Mix(frames=5)], 100, 4, seed=0)
        assert throttle.passed.total() <= 10
        throttle.passed.clear()
        again = Loader(uri, "train", [Mix(frames=5)], 100, 4, seed=0)
        assert not [name for name in throttle.passed if "index.arrow" in name]
        for step in range(10):
            throttle.passed.clear()
            batch = loader.batch(step)
            assert throttle.passed.total() <= len(batch)
            assert all("bytes=" in name for name in throttle.passed)
            assert max(throttle.passed.values(), default=1) == 1
        assert [s.clip_id for s in again.batch(9)] == [s.clip_id for s in loader.batch(9)]


@pytest.mark.usefixtures("fresh_s3")
def test_an_artifact_made_anew_at_its_old_place_has_its_own_index(
    s3_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uri = tokens(folder := f"{s3_bucket}/anew", 1, clips=2)
    marker = storage.read_bytes(f"{uri}/artifact.json")
    assert len(Index(uri)) == 2
    storage.remove(folder)
    tokens(folder, 1, clips=3)
    storage.write_bytes(f"{uri}/artifact.json", marker)  # which may say the very same
    assert len(Index(uri)) == 3


@pytest.mark.usefixtures("fresh_s3")
def test_local_indexes_that_nobody_opens_are_removed(
    s3_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"longtake-index-{os.getuid()}"
    uris = [tokens(f"{s3_bucket}/unused-{number}", 1) for number in range(3)]
    held = [Index(uri) for uri in uris[:2]]
    unused, used = sorted(folder.glob("*.arrow"), key=lambda file: file.stat().st_mtime)
    for file in folder.iterdir():
        os.utime(file, (0, 0))
    Index(uris[1])
    Index(uris[2])
    assert not unused.exists()
    assert used.exists()
    assert len(list(folder.glob("*.arrow"))) == 2
    assert held[0].read(0).num_rows == Index(uris[0]).read(0).num_rows
