"""Checks of a file's name and first bytes, before any decoder opens it."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from data_prep.types import UnreadableReason

_READ = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".vob", ".3gp", ".3g2", ".flv", ".wmv", ".asf", ".ogv", ".mxf", ".gif"),
)
VIDEO_SUFFIXES = (*_READ, ".rm", ".rmvb", ".swf", ".wtv", ".ivf", ".y4m", ".nut")
"""What inputs are called that hold film; the last ones are not read, and say so as rows."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)
"""What inputs of directories and archives are called; their bytes decide what they are."""
HEADER_BYTES = 4096
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_CONTAINERS = (
    *((4, box) for box in _MP4_FIRST_BOXES),
    *((0, b"\x1a\x45\xdf\xa3"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3")),
    *((8, b"AVI "), (0, b"FLV"), (0, b"OggS"), (0, b"GIF8")),
    *((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01")),
)
"""Places and first bytes of the containers that are read; MPEG-TS has its own."""
_UNSUPPORTED = {
    **{b".RMF": "RealMedia", b"FWS": "Flash", b"CWS": "Flash", b"ZWS": "Flash", b"DKIF": "IVF"},
    **{b"YUV4MPEG2": "YUV4MPEG2", b"nut/multimedia": "NUT"},
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11": "WTV",
}
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def problem(path: Path) -> tuple[UnreadableReason, str] | None:
    """Return why `path` cannot be a readable video or image (reason, detail), or None to go on."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "missing", "no such file"
    except OSError as error:
        return "missing", f"cannot be read: {error.strerror or error}"
    if not stat.S_ISREG(status.st_mode):
        return "not_a_video", "not a regular file"
    if status.st_size == 0:
        return "empty", "0 bytes"
    try:
        if cut := _cut_short(path, status.st_size):
            return "truncated", cut
    except OSError as error:
        return "missing", f"cannot be read: {error.strerror or error}"
    return None


def unopened(path: Path, detail: str) -> tuple[UnreadableReason, str]:
    """Return why no decoder opens a file, by its first bytes, and what is to be said of it."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    if any(head[at : at + len(magic)] == magic for at, magic in _CONTAINERS):
        return "decode_error", detail
    stream = head[:1] + head[188:189], head[4:5] + head[196:197]  # the second has time codes
    if b"GG" in stream:
        return "decode_error", detail
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            return "unsupported_container", f"{name} is not read; give one of {' '.join(_READ)}"
    return "not_a_video", detail


def is_image(head: bytes) -> bool:
    """Return whether a file's first bytes (12 or more) are those of JPEG, PNG or WebP."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (
        head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    )


def segment(head: bytes, size_bytes: int) -> tuple[int, int] | None:
    """Return how many bytes the Segment of a Matroska or WebM file states, and how many are there.

    Args:
        head: the file's first bytes.
        size_bytes: of the file.

    Returns:
        None: another container, or one that was written without knowing its end.
    """
    if not head.startswith(_EBML):
        return None
    header = _length(head, 4)
    at = header and header[1] + header[0]
    if not at or head[at : at + 4] != _SEGMENT:
        return None
    stated = _length(head, at + 4)
    return stated and (stated[0], size_bytes - stated[1])


def _length(head: bytes, at: int) -> tuple[int, int] | None:
    """Return an EBML length and where it ends; None where it is unknown or not all there."""
    if at >= len(head) or not head[at]:
        return None
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") - (1 << 7 * width)
    unknown = value == (1 << 7 * width) - 1 or at + width > len(head)
    return None if unknown else (value, at + width)


def _cut_short(path: Path, size_bytes: int) -> str | None:
    """Say where a file ends before what its container states, or return None."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
        if found := segment(head, size_bytes):
            stated, there = found
            cut = f"its Segment has {there} of {stated} bytes: the file is cut short"
            return cut if there < stated else None
        return _mp4_cut_short(file, size_bytes)


def _mp4_cut_short(file: BinaryIO, size_bytes: int) -> str | None:
    """Walk the top-level boxes of an MP4: say where the file ends too early, or return None."""
    at, seen = 0, set()
    while at + 8 <= size_bytes:
        file.seek(at)
        head = file.read(16)
        kind, length = head[4:8], int.from_bytes(head[:4], "big")
        if at == 0 and kind not in _MP4_FIRST_BOXES:
            return None  # another container; only its decoder can tell
        if length == 1:  # 64-bit length follows
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # to the end of the file
            length = size_bytes - at
        if length < 8 or not kind.isascii():
            return None  # padding or damage; only its decoder can tell
        if at + length > size_bytes and kind in (b"mdat", b"moov", b"moof"):
            there = size_bytes - at
            return f"box {kind.decode()} has {there} of {length} bytes: the file is cut short"
        seen.add(kind)
        at += length

    if b"mdat" in seen and not seen & {b"moov", b"moof"}:
        return "no moov box: the file is cut short, or its recording never ended"
    return None
