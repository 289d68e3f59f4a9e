"""Checks of a file's name and first bytes, before any decoder opens it."""

import os
import stat
from pathlib import Path

from data_prep.types import UnreadableReason

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)
"""What inputs of directories and archives are called; their bytes decide what they are."""
HEADER_BYTES = 4096
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")


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


def is_container(path: Path) -> bool:
    """Return whether the first bytes are those of a known container of video."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    return (
        head[4:8] in _MP4_FIRST_BOXES
        or head.startswith((b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (len(head) > 188 and head[0] == 0x47 and head[188] == 0x47)
    )


def is_image(head: bytes) -> bool:
    """Return whether a file's first bytes (12 or more) are those of JPEG, PNG or WebP."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (
        head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    )


def _cut_short(path: Path, size_bytes: int) -> str | None:
    """Walk the top-level boxes of an MP4: say where the file ends too early, or return None."""
    with open(path, "rb") as file:
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
