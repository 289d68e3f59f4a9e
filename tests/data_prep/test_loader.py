"""The loader: a batch is a function of (seed, step), whatever came before and whoever asks."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_prep import loader
from data_prep.loader import Loader, Mix
from data_prep.sample import Sample
from data_prep.shards import ShardSpec
from infra.errors import UserError
from infra.seeding import derive
from tests import shard_artifacts
from tests.shard_artifacts import row, tokens_spec, window

FRAMES = (5, 9, 20, 1, 33, 17, 6, 40)


def write(folder: Path, spec: ShardSpec, rows: list[dict], per_group: int = 2) -> str:
    half = len(rows) // 2
    return shard_artifacts.write(folder, spec, [rows[:half], rows[half:]], per_group)


def split(number: int) -> str:
    return "validation" if number % 4 == 3 else "train"


@pytest.fixture
def frames(tmp_path: Path) -> str:
    rows = []
    for number, count in enumerate(FRAMES):
        # every pixel of frame t of clip c is 30 c + t, so that a sample says where it comes from
        video = np.broadcast_to(np.arange(count)[:, None, None, None], (count, 8, 8, 3))
        data = (video + 30 * number).astype(np.uint8)
        rows.append(row(f"c{number}", [window(data, count)], split=split(number)))
    return write(tmp_path, shard_artifacts.FRAMES, rows)


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    rows = []
    for number in range(8):
        windows = [
            window(np.full((1 + f // 4, 1, 2), number, np.uint8), f, s)
            for f in (1, 5) for s in range(3)
        ]  # fmt: skip
        text = np.array([number, 7], np.int32).tobytes()
        rows.append(row(f"c{number}", windows, split=split(number), text=text))
    return write(tmp_path, tokens_spec(), rows)


MIX = (Mix(frames=1), Mix(frames=5, weight=3.0))


def signature(batch: list[Sample]) -> list:
    return [(s.clip_id, s.data.shape[0], int(s.data[0, 0, 0, 0])) for s in batch]


def test_any_step_can_be_asked_for_first(frames: str):
    straight = Loader(frames, "train", MIX, 30, 4, seed=7)
    expected = [signature(straight.batch(step)) for step in range(30)]
    resumed = Loader(frames, "train", MIX, 30, 4, seed=7)
    assert [signature(resumed.batch(step)) for step in (29, 11, 12)] == [
        expected[29], expected[11], expected[12],
    ]  # fmt: skip
    other = Loader(frames, "train", MIX, 30, 4, seed=8)
    assert [signature(other.batch(step)) for step in range(30)] != expected


def test_workers_share_the_batch_of_one(frames: str):
    loader = Loader(frames, "train", MIX, 10, 4, seed=0)
    for step in range(10):
        whole = signature(loader.batch(step))
        first, second = (signature(loader.batch(step, rank, 2)) for rank in (0, 1))
        assert first + second == whole


def test_an_epoch_sees_every_item_once(tokens: str):
    loader = Loader(tokens, "train", [Mix(frames=5)], 9, 2, seed=3)
    seen = Counter(s.clip_id for step in range(9) for s in loader.batch(step))
    assert seen == {f"c{n}": 3 for n in range(8) if n % 4 != 3}


def test_frames_are_consecutive_and_of_the_split(frames: str):
    loader = Loader(frames, "train", [Mix(frames=5)], 20, 4, seed=1)
    for step in range(20):
        for sample in loader.batch(step):
            assert int(sample.clip_id[1:]) % 4 != 3
            values = sample.data[:, 0, 0, 0].astype(int)
            assert list(np.diff(values) % 256) == [1] * 4
            assert values[0] == 30 * int(sample.clip_id[1:]) + sample.start_frame


def test_a_mix_is_drawn_by_weight(frames: str):
    loader = Loader(frames, "train", MIX, 400, 1, seed=0)
    lengths = Counter(loader.batch(step)[0].data.shape[0] for step in range(400))
    assert 0.65 < lengths[5] / 400 < 0.85


def test_held_out_samples_are_always_the_same(tokens: str):
    samples = Loader(tokens, "validation", [Mix(frames=5)], 1, 1, seed=0).first(4)
    again = Loader(tokens, "validation", [Mix(frames=5)], 1, 1, seed=9).first(4)
    assert [s.clip_id for s in samples] == [s.clip_id for s in again]
    assert {s.clip_id for s in samples} == {"c3", "c7"}
    assert samples[0].data.shape == (2, 1, 2)
    for sample in samples:
        assert sample.text is not None
        assert sample.text.tolist() == [int(sample.clip_id[1]), 7]


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    """Wide and tall clips of 5 frames, two wide ones for each tall one, in the same row groups."""
    rows = []
    for number in range(24):
        height, width = (16, 8) if number % 3 == 2 else (8, 16)
        data = np.full((5, height, width, 3), number, np.uint8)
        rows.append(row(f"c{number}", [window(data, 5)]))
    return write(tmp_path, shard_artifacts.FRAMES, rows, per_group=6)


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


def test_what_is_not_there_is_named(frames: str, tmp_path: Path):
    with pytest.raises(UserError, match="no train clip of 65 frames"):
        Loader(frames, "train", [Mix(frames=65)], 1, 1, seed=0)
    with pytest.raises(UserError, match="no artifact here"):
        Loader(str(tmp_path / "none"), "train", MIX, 1, 1, seed=0)


def test_latents_and_embeddings_come_as_their_spec_says(tmp_path: Path):
    codec = {"latent": {"kind": "channels", "channels": 3}}
    text = {"kind": "t5", "fingerprint": "f", "dtype": "float16", "dim": 4}
    spec = ShardSpec("latents", "float16", codec, "c", text)
    latents = np.random.default_rng(0).normal(size=(8, 3, 2, 1, 5)).astype(np.float16)
    embeddings = np.random.default_rng(1).normal(size=(8, 6, 4)).astype(np.float16)
    rows = [
        row(f"c{n}", [window(latents[n], 5, 9)], text=embeddings[n, : n % 3].tobytes())
        for n in range(8)
    ]
    for sample in Loader(write(tmp_path, spec, rows), "train", [Mix(frames=5)], 1, 8, 0).batch(0):
        number = int(sample.clip_id[1:])
        assert (sample.data == latents[number]).all()
        assert sample.text is not None
        assert (sample.text == embeddings[number, : number % 3]).all()
        assert (sample.shape, sample.start_frame) == ((5, 1, 5), 9)
        assert sample.data.dtype == np.float16


def test_an_epoch_is_whole_however_many_row_groups_are_mixed_at_once(
    tokens: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loader, "SHUFFLE_ROW_GROUPS", 2)
    epoch = Loader(tokens, "train", [Mix(frames=5)], 18, 1, seed=3)
    seen = [epoch.batch(step)[0].clip_id for step in range(18)]
    assert Counter(seen) == {f"c{n}": 3 for n in range(8) if n % 4 != 3}
    assert seen != sorted(seen)


def test_every_sample_has_a_seed_that_its_reader_does_not_change(tokens: str):
    loader = Loader(tokens, "train", [Mix(frames=5)], 3, 4, seed=2)
    for step in range(3):
        seeds = [s.seed for s in loader.batch(step)]
        assert seeds == [derive(2, "sample", step, place) for place in range(4)]
        assert seeds == [s.seed for rank in (0, 1) for s in loader.batch(step, rank, 2)]
    held = Loader(tokens, "validation", [Mix(frames=5)], 1, 1, seed=2)
    assert len({s.seed for s in held.first(4)}) == 4
    assert [s.seed for s in held.first(4)] == [s.seed for s in held.first(4)]


def test_epochs_differ_and_each_mixes_the_items_of_several_row_groups(tokens: str):
    """The row groups of 2 items of a clip are 4; all are one pool."""
    rows = Loader(tokens, "train", [Mix(frames=5)], 54, 1, seed=3)
    drawn = [(s.clip_id, s.start_frame) for step in range(54) for s in rows.batch(step)]
    epochs = [drawn[at : at + 18] for at in (0, 18, 36)]
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(epochs[0])}
    assert len({tuple(epoch) for epoch in epochs}) == 3
    for epoch in epochs:
        changes = sum(one[0] != other[0] for one, other in pairwise(epoch))
        assert changes > 9, "files' order within a row group changes clips 5 times"


def test_each_epoch_permutes_the_row_groups(tokens: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "SHUFFLE_ROW_GROUPS", 1)  # no pool mixes them
    rows = Loader(tokens, "train", [Mix(frames=5)], 180, 1, seed=3)
    order = [int(rows.batch(step)[0].clip_id[1:]) // 2 for step in range(180)]
    epochs = [tuple(dict.fromkeys(order[at : at + 18])) for at in range(0, 180, 18)]
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(range(4))}
    assert len(set(epochs)) > 2


def test_each_epoch_permutes_the_items_of_a_row_group(tmp_path: Path):
    rows = [row(f"c{n}", [window(np.full((2, 1, 2), n, np.uint8), 5)]) for n in range(12)]
    alone = shard_artifacts.write(tmp_path, tokens_spec(), [rows])
    one = Loader(alone, "train", [Mix(frames=5)], 36, 1, seed=3)
    drawn = [one.batch(step)[0].clip_id for step in range(36)]
    epochs = [tuple(drawn[at : at + 12]) for at in (0, 12, 24)]
    assert len(set(epochs)) == 3
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(f"c{n}" for n in range(12))}
