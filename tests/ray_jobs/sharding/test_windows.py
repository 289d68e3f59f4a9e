"""Windows through a codec: the same whatever the pieces, the batches and the sharing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import shards
from data_prep.sampling import WindowConfig, window_starts
from models.pixels import to_pixels
from ray_jobs.sharding.source import Failure, Piece
from ray_jobs.sharding.windows import WindowEncoder
from tests.toy_codecs import ToyCodec

CPU = torch.device("cpu")
WINDOWS = {
    "17 to 5": (WindowConfig(frames=17, stride=4), WindowConfig(frames=34, stride=10)),
    "causal 4": tuple(WindowConfig(frames=f, stride=s) for f, s in ((1, 3), (5, 4), (17, 8))),
}


def clip(name: str, frames: int) -> np.ndarray:
    return np.random.default_rng(len(name) + frames).integers(
        256, size=(frames, 8, 16, 3), dtype=np.uint8
    )


def pieces(name: str, frames_THWC: np.ndarray, most: int) -> list[Piece]:
    about = {"clip_id": name, "caption": name, "split": "train"}
    count = len(frames_THWC)
    return [
        Piece(about, frames_THWC[at : at + most], at, at + most >= count)
        for at in range(0, count, most)
    ]


def encode(codec: ToyCodec, rule: str, given: list[Any], batch_size: int) -> list[Any]:
    encoder = WindowEncoder(
        codec, codec.spec, WINDOWS[rule], batch_size, lambda text: str(text).encode(), CPU
    )
    return list(encoder.rows(given))


@pytest.mark.parametrize("rule", WINDOWS)
@pytest.mark.parametrize("is_coded", [True, False])
@settings(max_examples=15)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 40), st.integers(1, 9))
def test_every_window_is_what_the_codec_makes_of_its_frames(
    rule: str, is_coded: bool, lengths: list[int], most: int, batch_size: int
):
    codec = ToyCodec(rule, is_coded)
    films = {f"c{n}": clip(f"c{n}", length) for n, length in enumerate(lengths)}
    given = [piece for name, film in films.items() for piece in pieces(name, film, most)]
    rows = encode(codec, rule, given, batch_size)
    assert [row["clip_id"] for row in rows] == list(films)
    for row in rows:
        film = films[row["clip_id"]]
        wanted = {(w.frames, s) for w in WINDOWS[rule] for s in window_starts(len(film), w)}
        assert {(w["frames"], w["start_frame"]) for w in row["windows"]} == wanted
        assert (row["frames"], row["text"]) == (len(film), row["clip_id"].encode())
        for window in row["windows"]:
            start, stop = window["start_frame"], window["start_frame"] + window["frames"]
            direct = codec.encode(to_pixels(film[None, start:stop], CPU))[0].numpy()
            kept = np.frombuffer(window["data"], codec.spec.latent.dtype)
            assert window["shape"] == list(direct.shape)
            assert np.allclose(kept, direct.ravel(), atol=1e-3)


def test_windows_that_begin_at_one_frame_are_encoded_once(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, int]] = []
    for rule, wanted in (("causal 4", [(1, 17)]), ("17 to 5", [(1, 17), (1, 34)])):
        codec = ToyCodec(rule)
        seen.clear()

        def spy(x: torch.Tensor, whole: Any = codec.encode) -> torch.Tensor:
            seen.append((len(x), x.shape[2]))
            return whole(x)

        monkeypatch.setattr(codec, "encode", spy)
        film = clip("c", 17 if rule == "causal 4" else 34)
        monkeypatch.setitem(
            WINDOWS, rule, [w.model_copy(update={"stride": 100}) for w in WINDOWS[rule]]
        )
        encode(codec, rule, list(pieces("c", film, 100)), 1)
        assert sorted(seen) == wanted


def test_a_clip_of_many_windows_has_several_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "PIECE_BYTES", 40)
    codec, film = ToyCodec("causal 4"), clip("c", 60)
    rows = encode(codec, "causal 4", list(pieces("c", film, 7)), 1)
    assert len(rows) > 3
    starts = [w["start_frame"] for row in rows for w in row["windows"]]
    assert starts == sorted(starts)
    assert sum(row["frames"] for row in rows) == 60
    wanted = [s for w in WINDOWS["causal 4"] for s in window_starts(60, w)]
    assert starts == sorted(wanted)


def test_what_came_before_a_failure_stays(monkeypatch: pytest.MonkeyPatch):
    codec = ToyCodec("causal 4")
    begun = pieces("broken", clip("broken", 60), 10)[:2]
    failure = Failure("broken", "uri", "detail", 20)
    none = Failure("none", "uri", "detail", 0)
    rows = encode(codec, "causal 4", [*begun, failure, none, *pieces("c", clip("c", 9), 9)], 4)
    assert [type(row) for row in rows] == [dict, Failure, Failure, dict]
    assert (rows[0]["frames"], rows[3]["frames"]) == (20, 9)
    assert max(w["start_frame"] + w["frames"] for w in rows[0]["windows"]) <= 20
