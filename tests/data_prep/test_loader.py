"""The loader: a batch is a function of (seed, step), whatever came before and whoever asks."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import loader, shards
from data_prep.loader import Loader, Mix
from data_prep.sample import Sample
from infra import artifact, storage
from infra.config import JobConfig
from infra.errors import UserError
from infra.seeding import derive

FRAMES = (5, 9, 20, 1, 33, 17, 6, 40)


def write(
    tmp_path: Path, kind: str, schema: pa.Schema, rows: list[dict], per_group: int = 2
) -> str:
    config = JobConfig(input=(str(tmp_path),), output=str(tmp_path / f"{kind}-artifact"))
    output = artifact.begin(kind, config)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        with (
            storage.open_output(output.path(kind, f"part-{number}.parquet")) as file,
            shards.Writer(file, schema) as writer,
        ):
            for start in range(0, len(part), per_group):
                writer.write_table(pa.Table.from_pylist(part[start : start + per_group], schema))
    artifact.finish(output, kind, {}, time.monotonic())
    return output.uri


def provenance(number: int, frames: int) -> dict:
    return {
        "clip_id": f"c{number}", "video_id": "v", "caption": "film", "motion": 1.0, "fps": 12.0,
        "split": "validation" if number % 4 == 3 else "train",
        "start_s": 0.0, "end_s": 1.0, "frames": frames,
    }  # fmt: skip


@pytest.fixture
def pixels(tmp_path: Path) -> str:
    rows = []
    for number, frames in enumerate(FRAMES):
        # every pixel of frame t of clip c is 50 c + t, so that a sample says where it comes from
        video = np.broadcast_to(np.arange(frames)[:, None, None, None], (frames, 8, 8, 3))
        data = (video + 30 * number).astype(np.uint8).tobytes()
        rows.append({**provenance(number, frames), "height": 8, "width": 8, "pixels": data})
    return write(tmp_path, "frames", shards.FRAMES, rows)


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    rows = []
    for number in range(8):
        windows = [
            {"frames": f, "start_frame": s, "shape": [1 + f // 4, 1, 2],
             "ids": [number] * (2 * (1 + f // 4))}
            for f in (1, 5) for s in range(3)
        ]  # fmt: skip
        extra = {"text_ids": [number], "windows": windows, "tokenizer_fingerprint": "t"}
        rows.append({**provenance(number, 9), **extra})
    return write(tmp_path, "tokens", shards.TOKENS, rows)


MIX = (Mix(frames=1), Mix(frames=5, weight=3.0))


def signature(batch: list[Sample]) -> list:
    return [(s.clip_id, s.data.shape[0], int(s.data[0, 0, 0, 0])) for s in batch]


def test_any_step_can_be_asked_for_first(pixels: str):
    straight = Loader(pixels, "train", MIX, 30, 4, seed=7)
    expected = [signature(straight.batch(step)) for step in range(30)]
    resumed = Loader(pixels, "train", MIX, 30, 4, seed=7)
    assert [signature(resumed.batch(step)) for step in (29, 11, 12)] == [
        expected[29], expected[11], expected[12],
    ]  # fmt: skip
    other = Loader(pixels, "train", MIX, 30, 4, seed=8)
    assert [signature(other.batch(step)) for step in range(30)] != expected


def test_workers_share_the_batch_of_one(pixels: str):
    loader = Loader(pixels, "train", MIX, 10, 4, seed=0)
    for step in range(10):
        whole = signature(loader.batch(step))
        first, second = (signature(loader.batch(step, rank, 2)) for rank in (0, 1))
        assert first + second == whole


def test_an_epoch_sees_every_item_once(tokens: str):
    loader = Loader(tokens, "train", [Mix(frames=5)], 9, 2, seed=3)
    seen = Counter(s.clip_id for step in range(9) for s in loader.batch(step))
    assert seen == {f"c{n}": 3 for n in range(8) if n % 4 != 3}


def test_frames_are_consecutive_and_of_the_split(pixels: str):
    loader = Loader(pixels, "train", [Mix(frames=5)], 20, 4, seed=1)
    for step in range(20):
        for sample in loader.batch(step):
            assert int(sample.clip_id[1:]) % 4 != 3
            values = sample.data[:, 0, 0, 0].astype(int)
            assert list(np.diff(values) % 256) == [1] * 4
            assert values[0] == 30 * int(sample.clip_id[1:]) + sample.start_frame


def test_a_mix_is_drawn_by_weight(pixels: str):
    loader = Loader(pixels, "train", MIX, 400, 1, seed=0)
    lengths = Counter(loader.batch(step)[0].data.shape[0] for step in range(400))
    assert 0.65 < lengths[5] / 400 < 0.85


def test_held_out_samples_are_always_the_same(tokens: str):
    samples = Loader(tokens, "validation", [Mix(frames=5)], 1, 1, seed=0).first(4)
    again = Loader(tokens, "validation", [Mix(frames=5)], 1, 1, seed=9).first(4)
    assert [s.clip_id for s in samples] == [s.clip_id for s in again]
    assert {s.clip_id for s in samples} == {"c3", "c7"}
    assert samples[0].data.shape == (2, 1, 2)


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    """Wide and tall clips of 5 frames, two wide ones for each tall one, in the same row groups."""
    rows = []
    for number in range(24):
        height, width = (16, 8) if number % 3 == 2 else (8, 16)
        data = np.full((5, height, width, 3), number, np.uint8).tobytes()
        size = {"height": height, "width": width}
        rows.append({**provenance(number, 5), **size, "split": "train", "pixels": data})
    return write(tmp_path, "frames", shards.FRAMES, rows, per_group=6)


def test_a_batch_has_one_shape_and_the_mix_gives_each_shape_its_share(shapes: str):
    wide, tall = (5, 8, 16), (5, 16, 8)
    loader = Loader(shapes, "train", [Mix(frames=5)], 300, 4, seed=0)
    assert loader.shapes == [wide, tall]
    drawn: dict[tuple, list[int]] = {wide: [], tall: []}
    for step in range(300):
        (shape,) = {sample.data.shape[:3] for sample in loader.batch(step)}
        drawn[shape] += [int(sample.data.max()) for sample in loader.batch(step)]
    assert 0.6 < len(drawn[wide]) / 1200 < 0.73
    assert sorted(drawn[wide][:16]) == [n for n in range(24) if n % 3 != 2]
    assert sorted(drawn[tall][:8]) == [n for n in range(24) if n % 3 == 2]


def test_every_shape_is_judged(shapes: str):
    held = Loader(shapes, "train", [Mix(frames=5)], 1, 1, seed=0).first(24)
    assert sorted(int(sample.data.max()) for sample in held) == list(range(24))


def test_what_is_not_there_is_named(pixels: str, tmp_path: Path):
    with pytest.raises(UserError, match="no train clip of 65 frames"):
        Loader(pixels, "train", [Mix(frames=65)], 1, 1, seed=0)
    with pytest.raises(UserError, match="no artifact here"):
        Loader(str(tmp_path / "none"), "train", MIX, 1, 1, seed=0)


def test_shards_of_another_version_are_refused(tmp_path: Path):
    other = shards.FRAMES.with_metadata({"longtake.schema": "frames", "longtake.version": "0"})
    uri = write(tmp_path, "frames", other, [
        {**provenance(n, 1), "height": 1, "width": 1, "pixels": b"abc"} for n in range(2)
    ])  # fmt: skip
    with pytest.raises(UserError, match=r"longtake.version is '0'; expected '3'"):
        Loader(uri, "train", [Mix(frames=1)], 1, 1, seed=0)


def test_an_epoch_is_whole_however_many_row_groups_are_mixed_at_once(
    tokens: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loader, "SHUFFLE_ROW_GROUPS", 2)
    epoch = Loader(tokens, "train", [Mix(frames=5)], 18, 1, seed=3)
    seen = [epoch.batch(step)[0].clip_id for step in range(18)]
    assert Counter(seen) == {f"c{n}": 3 for n in range(8) if n % 4 != 3}
    assert seen != sorted(seen)


def test_building_reads_footers_and_no_rows(pixels: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a row group was read")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", refuse)
    assert len(Loader(pixels, "train", [Mix(frames=5)], 1, 1, seed=0)) == 16


def test_every_sample_has_a_seed_that_its_reader_does_not_change(tokens: str):
    loader = Loader(tokens, "train", [Mix(frames=5)], 3, 4, seed=2)
    for step in range(3):
        seeds = [s.seed for s in loader.batch(step)]
        assert seeds == [derive(2, "sample", step, place) for place in range(4)]
        assert seeds == [s.seed for rank in (0, 1) for s in loader.batch(step, rank, 2)]
    held = Loader(tokens, "validation", [Mix(frames=5)], 1, 1, seed=2)
    assert len({s.seed for s in held.first(4)}) == 4
    assert [s.seed for s in held.first(4)] == [s.seed for s in held.first(4)]
