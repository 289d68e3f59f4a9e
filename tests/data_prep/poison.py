"""Films of many kinds, and files that break decoders, made from a real film at test time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np

ENCODERS = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libaom-av1": {"cpu-used": "8"},  # SVT-AV1 makes the process of root a real-time one
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {"bf": "2", "qscale": "2"},
    "mpeg2video": {"bf": "2", "qscale": "2"},
}
SIZE = (256, 144)
FRAMES = 75


@dataclass(frozen=True)
class Expected:
    """What analysis says of a file."""

    status: str
    reasons: tuple[str | None, ...] = (None,)
    """Several where a decoder's luck decides."""
    frames: int | None = None
    size: tuple[int, int] | None = None


WHOLE = Expected("kept", frames=FRAMES, size=SIZE)


def take(path: Path, count: int, width: int = 256, height: int = 144) -> list[np.ndarray]:
    """Return the first frames of a film as uint8 HWC."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.reformat(width, height, "rgb24").to_ndarray())
            if len(frames) == count:
                break
    return frames


def uneven(count: int, seed: int) -> list[float]:
    """Return rising times from 0, in whole milliseconds, with gaps of 16 to 120 ms."""
    gaps = np.random.default_rng(seed).choice([16, 21, 33, 40, 83, 120], count - 1)
    return [0.0, *(np.cumsum(gaps) / 1000).tolist()]


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    times_s: Sequence[float] | None = None,
    rotation: int = 0,
    shape: Fraction | None = None,
) -> Path:
    """Write frames at 25 fps, or at the given times; the name says which container.

    Args:
        path: where to.
        frames: uint8 HWC, as stored.
        codec: ffmpeg's name.
        times_s: when each frame begins, in whole milliseconds.
        rotation: degrees counterclockwise by which it is to be turned when shown.
        shape: width of a pixel over its height.
    """
    with av.open(str(path), "w", options=_index_first(path)) as container:
        stream = add_stream(container, codec, frames[0])
        if rotation:
            stream.set_display_rotation(rotation)
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            container.mux(stream.encode(_frame(picture, number, times_s)))
        container.mux(stream.encode())
    return path


def add_stream(
    container: av.container.OutputContainer, codec: str, frame: np.ndarray
) -> av.VideoStream:
    """Return a new video stream for frames like this one."""
    stream = container.add_stream(codec, rate=25)
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width, _ = frame.shape
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = ENCODERS.get(codec, {})
    return stream


def write_sound(path: Path, seconds: int = 3) -> Path:
    """Write a file that holds a tone and no picture."""
    rate = 8000
    tone = np.sin(np.arange(seconds * rate) * 0.3).astype(np.float32)[None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for at in range(0, tone.shape[1] - 1023, 1024):
            part = np.ascontiguousarray(tone[:, at : at + 1024])
            sound = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = rate, at
            container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def boxes(data: bytes, start: int = 0, end: int | None = None):
    """Yield (kind, start, end) of the MP4 boxes that lie side by side."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length = int.from_bytes(data[start : start + 4], "big")
        if length < 8:
            return
        yield data[start + 4 : start + 8], start, start + length
        start += length


def box(data: bytes, *kinds: str) -> int:
    """Return where the first box of this path begins."""
    start, end = 0, len(data)
    for depth, kind in enumerate(kinds):
        inside = start + 8 if depth else 0
        start, end = next((a, b) for k, a, b in boxes(data, inside, end) if k == kind.encode())
    return start


def _index_first(path: Path) -> dict[str, str]:
    return {"movflags": "+faststart"} if path.suffix == ".mp4" else {}


def _frame(picture: np.ndarray, number: int, times_s: Sequence[float] | None) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    if times_s is None:
        frame.pts, frame.time_base = number, Fraction(1, 25)
    else:
        frame.pts, frame.time_base = round(times_s[number] * 1000), Fraction(1, 1000)
    return frame


def lie_about_frames(data: bytes, count: int) -> bytes:
    """Return an MP4 whose table of times speaks of `count` frames."""
    at = box(data, "moov", "trak", "mdia", "minf", "stbl", "stts") + 16
    return data[:at] + count.to_bytes(4, "big") + data[at + 4 :]


def trim(data: bytes, first: int, count: int, ticks: int = 512) -> bytes:
    """Return a 25 fps MP4 of whose frames its edit list shows only `count` from `first` on."""
    edited = bytearray(data)
    at = box(data, "moov", "trak", "edts", "elst") + 16
    start = int.from_bytes(data[at + 4 : at + 8], "big") + first * ticks
    edited[at : at + 4] = (count * 40).to_bytes(4, "big")  # in thousandths of a second
    edited[at + 4 : at + 8] = start.to_bytes(4, "big")
    return bytes(edited)


def lie_about_size(data: bytes) -> bytes:
    """Return an MP4, which states its pixels' shape, that claims 65,535 x 65,535 of 65,535:1."""
    edited = bytearray(data)
    shown = box(data, "moov", "trak", "tkhd") + 84
    edited[shown : shown + 8] = b"\xff\xff\0\0\0\1\0\0"
    shape = data.index(b"pasp") + 4
    edited[shape : shape + 8] = b"\0\0\xff\xff\0\0\0\1"
    entry = box(data, "moov", "trak", "mdia", "minf", "stbl", "stsd") + 16
    edited[entry + 32 : entry + 36] = b"\xff\xff\xff\xff"
    return bytes(edited)


def build(folder: Path, clip: Path) -> dict[str, Expected]:
    """Fill `folder` with the corpus; return what to expect of each file by name.

    Kinds whose encoder this build of PyAV lacks are left out.

    Args:
        folder: an existing directory.
        clip: a real film of at least :data:`FRAMES` frames that move, without a cut.
    """
    frames = take(clip, FRAMES)
    made: dict[str, Expected] = {}

    def put(name: str, data: bytes, expected: Expected) -> None:
        (folder / name).write_bytes(data)
        made[name] = expected

    broken = ("truncated", "decode_error")
    plain = write(folder / "plain.mp4", frames).read_bytes()
    made["plain.mp4"] = WHOLE
    media, index = box(plain, "mdat"), box(plain, "moov")
    size = len(plain) - media
    put("zero bytes.mp4", b"", Expected("quarantined", ("empty",)))
    put("text.mp4", b"this is not a film\n" * 50, Expected("quarantined", ("not_a_video",)))
    put("no moov.mp4", plain[:index] + plain[media:], Expected("quarantined", ("truncated",)))
    middle, noise = media + size // 3, random.Random(0).randbytes(size // 3)
    put(
        "damaged in the middle.mp4",
        plain[:middle] + noise + plain[middle + len(noise) :],
        Expected("quarantined", broken),
    )
    put("cut short.mp4", plain[: -size // 3], Expected("quarantined", ("truncated",)))
    made["sound only.mp4"] = Expected("quarantined", ("no_video_stream",))
    write_sound(folder / "sound only.mp4")
    put("ten times the frames.mp4", lie_about_frames(plain, 750), WHOLE)
    put(  # the count is that of the times too, which are lost with it
        "a tenth of the frames.mp4",
        lie_about_frames(plain, 7),
        Expected("quarantined", ("decode_error",)),
    )
    square = write(folder / "absurd size.mp4", frames, shape=Fraction(1)).read_bytes()
    put("absurd size.mp4", lie_about_size(square), WHOLE)
    made["one frame.mp4"] = Expected("filtered", ("too_short",), 1, SIZE)
    write(folder / "one frame.mp4", frames[:1])
    put(
        "Straße – 映画 ünï code.mp4",
        write(folder / "a.mp4", frames[1:]).read_bytes(),
        Expected("kept", frames=FRAMES - 1, size=SIZE),
    )
    (folder / "a.mp4").unlink()
    turned = [np.rot90(frame, 3) for frame in frames]  # stored; a quarter turn left rights it
    made["portrait.mp4"] = Expected("kept", frames=FRAMES, size=SIZE)
    write(folder / "portrait.mp4", turned, rotation=90)
    for name, codec, times_s in (
        ("av1.mp4", "libaom-av1", None),
        ("hevc uneven.mp4", "libx265", uneven(FRAMES, 1)),
        ("vp9.webm", "libvpx-vp9", None),
        ("mpeg4 part 2.avi", "mpeg4", None),
    ):
        if codec in av.codecs_available:
            write(folder / name, frames, codec, times_s=times_s)
            made[name] = WHOLE
    put("plain again.mp4", plain, WHOLE)
    return made
