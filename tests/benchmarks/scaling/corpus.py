"""Generated corpora of any size: manifests and rows of the clip table.

No film is there. A video's number decides everything about it: of 100 videos three cannot be
decoded, five have no clip that is kept, and one has the bytes of the one before it. The others
have six clips of ten seconds.
"""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.analysis import AnalysisConfig, clip_id, source_id
from data_prep.filters import SCORED
from infra import storage
from infra.seeding import rng

CLIPS, CLIP_S, FPS = 6, 10, 25
SMALLEST_BYTES, LARGEST_BYTES = 2_000_000, 38_000_000
"""Of a video: with 20 MB on average, some 58 of them are ten minutes of CPU."""
_ROWS_AT_ONCE = 10_000
_VIDEOS_PER_ARCHIVE = 1000
_SCORES = {
    **dict.fromkeys(each.score.name for each in SCORED),
    **{"duration_s": float(CLIP_S), "short_side_px": 720.0, "aspect_ratio": 16 / 9},
    **{"fps": float(FPS), "black_share": 0.0, "brightness": 100.0, "letterbox_share": 0.0},
    **{"sharpness": 900.0},
}


def write_manifest(uri: str, videos: int) -> None:
    """Write a Parquet table of videos that are members of archives, with captions."""
    schema = pa.schema([("uri", pa.string()), ("caption", pa.string())])
    with storage.open_output(uri) as file, pq.ParquetWriter(file, schema) as writer:
        for first in range(0, videos, _ROWS_AT_ONCE):
            numbers = range(first, min(first + _ROWS_AT_ONCE, videos))
            draw = rng(0, "sizes", first)
            sizes = draw.integers(SMALLEST_BYTES, LARGEST_BYTES, len(numbers)).tolist()
            words = draw.integers(0, 1 << 62, len(numbers)).tolist()
            uris = [_member(n, size) for n, size in zip(numbers, sizes, strict=True)]
            captions = [f"A scene of {word:x}, seen from where {word * 7:x} was." for word in words]
            writer.write_table(pa.table([uris, captions], schema=schema))


def _member(number: int, size_bytes: int) -> str:
    archive, place = divmod(number, _VIDEOS_PER_ARCHIVE)
    uri = f"s3://films/{archive:07d}.tar"
    return storage.slice_uri(uri, place * LARGEST_BYTES, size_bytes, f"{number:09d}.mp4")


def analyse(
    uri: str,
    caption: str | None,
    config: AnalysisConfig,
    *,
    extra: str | None = None,
    damage: str | None = None,
    size_bytes: int | None = None,
) -> dict[str, Any]:
    """Return a plausible row of the clip table; see :func:`data_prep.analysis.analyse`."""
    number = int(storage.name(uri).removesuffix(".mp4"))
    of_hundred = number % 100
    bytes_of = number - 1 if of_hundred == 50 else number
    digest = hashlib.sha256(b"%d" % bytes_of).hexdigest()
    row: dict[str, Any] = {
        **{"source_id": source_id(uri), "video_id": digest[:32], "uri": uri, "caption": caption},
        **{"extra": extra, "detail": None, "media": "video", "size_bytes": size_bytes},
        **{"duration_s": float(CLIPS * CLIP_S), "fps": float(FPS), "width": 1280, "height": 720},
        **{"frames": CLIPS * CLIP_S * FPS, "codec": "h264", "decoder": "decord"},
        **{"cpu_seconds": 0.3 + (size_bytes or 0) / 2e6, "peak_rss_bytes": 300_000_000},
    }
    if of_hundred < 3:
        unread = {"video_id": None, "duration_s": None, "status": "quarantined", "clips": []}
        return {**row, **unread, "reason": "decode_error", "detail": "a packet cannot be read"}
    still = of_hundred < 8
    verdict = {"status": "filtered", "reason": "static"} if still else _KEPT
    clips = [_clip(row["video_id"], digest, place, verdict, still) for place in range(CLIPS)]
    return {**row, **verdict, "clips": clips}


_KEPT: dict[str, Any] = {"status": "kept", "reason": None}


def _clip(
    video_id: str, digest: str, place: int, verdict: dict[str, Any], still: bool
) -> dict[str, Any]:
    begin, end = place * CLIP_S * FPS, (place + 1) * CLIP_S * FPS
    drawn = int(digest[32 + 4 * place : 36 + 4 * place], 16) / 0x10000
    return {
        "clip_id": clip_id(video_id, begin, end, "generated"),
        **{"start_s": float(place * CLIP_S), "end_s": float((place + 1) * CLIP_S)},
        **{"start_frame": begin, "end_frame": end, **verdict},
        "scores": {**_SCORES, "motion": 0.0 if still else 0.5 + 4 * drawn},
        **{"crop_box": None, "phash": digest[place : place + 16], "thumbnail": None},
    }
