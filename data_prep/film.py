"""One untrusted film through PyAV: which stream, how it is to be shown, when its frames begin.

Only used by the decoding child (:mod:`data_prep.decode_worker`), which may be killed.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import RawIOBase
from itertools import chain
from typing import Any

import numpy as np

FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,gif"
"""The demuxers that may be used: a playlist posing as a video must not open other files."""
COMPLETE = 0.95
"""The share of what the container claims that must come out; claims run slightly over."""
BUFFER_BYTES = 1 << 18
"""What is asked at once of a film that is no local file."""
_UNSPECIFIED = 2  # in H.273
SHAPE_MAX = 4.0
"""Pixels that are further from square than this are taken for damage, and shown square."""
BROADCAST_GAP_S, GAP_S = 1.0, 10.0
"""Time without a frame after which another stretch of film begins: in MPEG streams, whose clocks
jump, and in other containers, where a picture may stand."""
HD_HEIGHT = 720
"""Films of this height and more that do not say are taken for BT.709, others for BT.601."""
TRANSFERS = {16: "smpte2084", 18: "arib-std-b67"}
"""Of high dynamic range, by their numbers in H.273: PQ and HLG."""
DEFAULT_PIXELS = 5_000_000
"""What being marked as the default counts for when ffmpeg chooses between streams."""


class Refused(Exception):
    """A video that cannot be read, with the reason that goes into the table."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become those that are shown: axes swapped, then mirrored."""

    swapped: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @property
    def is_rotation(self) -> bool:
        """Whether it is by quarter turns alone."""
        return self.swapped == (self.mirrored_x != self.mirrored_y)

    def apply(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """Return the pixels as they are shown."""
        pixels = pixels_HWC.transpose(1, 0, 2) if self.swapped else pixels_HWC
        return pixels[:: -1 if self.mirrored_y else 1, :: -1 if self.mirrored_x else 1]


def orientation(picture: Any) -> Orientation:
    """Return how a frame's display matrix says that it is shown; as stored where that is oblique.

    Source: ISO/IEC 14496-12, 6.2.2: (x', y') = (ax + cy, bx + dy).
    """
    from av.sidedata.sidedata import Type

    if (matrix := picture.side_data.get(Type.DISPLAYMATRIX)) is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if not (b or c) and a and d:
        return Orientation(False, a < 0, d < 0)
    if not (a or d) and b and c:
        return Orientation(True, c < 0, b < 0)
    return Orientation()


class Film:
    """One open container, read by PyAV: its best video stream, as it is meant to be shown.

    Opening it decodes the first frame, since containers lie about sizes and starts.

    Args:
        path: of a local file.
        source: opens what is to be read in place of `path`, seekable; None reads `path`.
        whole: the file is known to be whole, so that the length it claims need not be reached: its
            last picture may stand.
    """

    def __init__(
        self, path: str, source: Callable[[], RawIOBase] | None = None, whole: bool = False
    ) -> None:
        self.path, self._source, self._whole = path, source, whole
        self.container = open_container(source() if source else path)
        self.stream = best(self.container.streams.video)
        self.alone = len(self.container.streams.video) == 1
        self.stream.thread_count = 1
        rate = self.stream.average_rate or self.stream.guessed_rate or self.stream.base_rate
        if not rate:
            raise Refused("decode_error", "the container states no frame rate")
        self.fps = float(rate)
        self.tick_s = self.stream.time_base or Fraction(1, 90000)
        own_s = self._own_s()
        self.duration_s = own_s or (self.container.duration or 0) / 1e6
        # A longer sound track may stretch the container, so its length proves nothing.
        proven = bool(own_s or len(self.container.streams) == 1) and not whole
        self.promised_s = self.duration_s if proven else 0.0
        self.frames = self._claimed_frames()
        broadcast = self.container.format.name in ("mpegts", "mpeg", "mpegvideo")
        self.gap_s = max(BROADCAST_GAP_S if broadcast else GAP_S, 10 / self.fps)
        self.start, self.backwards = 0, 0
        self.lost = 0
        """Frames that came damaged, or were built on one that did, and were left out."""
        self.resumed = False
        """Whether some were left out right before the frame that came last."""
        rest = self._read()
        first = next(rest, None)
        if first is None:
            raise Refused("decode_error", "no frame came out")
        self._orient(first[1])
        self.start = round(first[0] / self.tick_s)
        self._ahead = chain([(0.0, first[1])], rest)

    def _own_s(self) -> float:
        """Return how long the stream says it is in seconds; 0 where it does not."""
        if self.stream.duration:
            return float(self.stream.duration * self.tick_s)
        stated = re.fullmatch(
            r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", self.stream.metadata.get("DURATION", "")
        )
        if not stated:
            return 0.0
        hours, minutes, seconds = map(float, stated.groups())
        return 3600 * hours + 60 * minutes + seconds

    def _claimed_frames(self) -> int:
        """Return how many frames are to come out; 0 where the container does not say.

        An edit list leaves frames out, which an MP4's count includes and its index does not.
        """
        if not self.stream.frames or "mov" not in self.container.format.name:
            return self.stream.frames
        return sum(not entry.is_discard for entry in self.stream.index_entries)

    def _orient(self, picture: Any) -> None:
        """Take from the first frame how the film is to be shown: its size and its quarter turns."""
        shape = float(self.stream.sample_aspect_ratio or 1)
        if not 1 / SHAPE_MAX <= shape <= SHAPE_MAX:
            shape = 1.0
        shown = (max(1, round(picture.width * shape)), picture.height)
        self.rotation, self.orientation = picture.rotation, orientation(picture)
        self.width_px, self.height_px = shown[::-1] if self.orientation.swapped else shown
        self.transfer = TRANSFERS.get(int(picture.color_trc), "")

    def again(self) -> "Film":
        """Return the same film, opened anew."""
        return Film(self.path, self._source, self._whole)

    def info(self) -> dict[str, Any]:
        """Return what the container claims, by the names of :class:`data_prep.types.VideoInfo`."""
        return {
            "media": "video",
            "duration_s": self.duration_s,
            "fps": self.fps,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "frames": self.frames,
            "codec": self.stream.codec_context.codec.canonical_name,
            "transfer": self.transfer,
        }

    def check_complete(self, frames: int, end_s: float) -> None:
        """Refuse a film of which too little came out."""
        if frames < COMPLETE * (frames + self.lost):
            raise Refused(
                "decode_error",
                f"{self.lost} frames are damaged or built on damage; {frames} are not",
            )
        if self.frames:
            if frames < COMPLETE * self.frames:
                raise Refused("truncated", f"read {frames} of {self.frames} frames")
        elif end_s < COMPLETE * self.promised_s - 1 / self.fps:
            raise Refused("truncated", f"read {end_s:.2f} of {self.promised_s:.2f} seconds")

    def times(self) -> np.ndarray:
        """Return when each frame begins by its packet, rising; decodes nothing.

        Raises:
            Refused: packets without a time, or with one of another's.
        """
        with open_container(self._source() if self._source else self.path) as container:
            packets = container.demux(container.streams[self.stream.index])
            found = [(packet.pts, packet.dts) for packet in packets if packet.size]
        stamps = [pts for pts, _ in found]
        if None in stamps:
            raise Refused("decode_error", "its packets state no times")
        order = np.array([dts for _, dts in found if dts is not None], np.int64)
        if (np.diff(order) < 0).any():
            raise Refused("decode_error", "its packets' times run backwards")
        times = np.sort(np.array(stamps, np.float64) - self.start) * float(self.tick_s)
        if not len(times) or abs(times[0]) > 1e-6 or not (np.diff(times) > 0).all():
            raise Refused("decode_error", "its packets' times are not those of its frames")
        return times

    def seek(self, to_s: float) -> None:
        """Go to the key frame at or before `to_s`."""
        offset = self.start + int(to_s / self.tick_s)
        self.container.seek(offset, stream=self.stream, backward=True)
        self._ahead = self._read()

    def pictures(self) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, frame) from the current position on, rising."""
        return self._ahead

    def _read(self) -> Iterator[tuple[float, Any]]:
        """Yield (seconds, frame) without times that run backwards, and without damage.

        A frame that came damaged is left out, and so are all that may be built on it: those up to
        the next key frame.
        """
        import av.error

        last, damaged, lost = None, False, 0
        for packet in self.container.demux(self.stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                damaged, lost = True, lost + 1
                continue
            for picture in decoded:
                damaged = picture.is_corrupt or (damaged and not picture.key_frame)
                if damaged:
                    lost += 1
                    continue
                at = self._stamp(picture, last)
                if at is None or (last is not None and at <= last):
                    self.backwards += 1
                    continue
                last = at
                self.lost, self.resumed, lost = self.lost + lost, lost > 0, 0
                yield float((at - self.start) * self.tick_s), picture
        self.lost += lost

    def _stamp(self, picture: Any, last: int | None) -> int | None:
        """Return when a frame is to be shown, in ticks.

        AVI stores no times, only an order, and what ffmpeg makes of it is wrong where frames are
        coded out of order. The packets' numbers are right, and run out a little before the frames.
        """
        if "avi" not in self.container.format.name:
            return picture.dts if picture.pts is None else picture.pts
        return last + 1 if picture.dts is None and last is not None else picture.dts

    def scaled(self, picture: Any, width: int, height: int, interpolation: str) -> np.ndarray:
        """Return a frame the right way up, `width` x `height` (uint8 HWC)."""
        way = orientation(picture)
        if way.swapped:
            width, height = height, width
        untagged = int(picture.colorspace) == _UNSPECIFIED
        space = "itu709" if untagged and picture.height >= HD_HEIGHT else None
        pixels = picture.reformat(
            width, height, "rgb24", interpolation=interpolation, src_colorspace=space, threads=1
        )
        return way.apply(pixels.to_ndarray())

    def cover(self, picture: Any, width: int, height: int) -> np.ndarray:
        """Scale a frame until it covers `width` x `height`, then cut out its centre (uint8 HWC)."""
        scale = max(width / self.width_px, height / self.height_px)
        wide = max(width, round(self.width_px * scale))
        high = max(height, round(self.height_px * scale))
        scaled = self.scaled(picture, wide, high, "AREA" if scale < 1 else "BICUBIC")
        top, left = (high - height) // 2, (wide - width) // 2
        return scaled[top : top + height, left : left + width]


def open_container(source: str | RawIOBase) -> Any:
    """Open a local file, or what reads like one, as one of :data:`FORMATS`.

    Raises:
        Refused: it is none of them.
    """
    import av
    import av.error
    import av.logging

    av.logging.set_level(av.logging.PANIC)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    file = "file:" + source if isinstance(source, str) else source
    try:
        return av.open(file, options=options, metadata_errors="replace", buffer_size=BUFFER_BYTES)
    except av.error.FFmpegError as error:
        raise Refused("open", f"no decoder opens it: {error.strerror}") from None


def best(streams: Sequence[Any]) -> Any:
    """Return the video stream that ffmpeg would choose: of most pixels, never a cover picture."""
    from av.stream import Disposition

    films = [s for s in streams if not s.disposition & Disposition.attached_pic]
    if not films:
        raise Refused("no_video_stream", "the file holds no video stream")
    known = [s for s in films if s.codec_context is not None]
    if not known:
        raise Refused("decode_error", "no decoder for the codec of its video stream")
    return max(
        known,
        key=lambda s: (
            s.width * s.height + DEFAULT_PIXELS * bool(s.disposition & Disposition.default)
        ),
    )
