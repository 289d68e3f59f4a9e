"""Analysis of one video or image: one row of the clip table, from a single decode.

A single pass of small frames feeds cut detection, every score, the perceptual hash and thumbnails.
Memory does not grow with the film: what is held is one chunk of frames, the thumbnails' candidates
of the current shot, and a few numbers a frame.
"""

import hashlib
import json
import resource
import time
from array import array
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data_prep import filters, probe, thumbnails
from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits, Usage
from data_prep.filters import FiltersConfig, duration, motion
from data_prep.measurements import Measurements
from data_prep.scenes import CutFinder, ScenesConfig
from data_prep.thumbnails import Candidates
from data_prep.types import FrameChunk, Scene, VideoInfo
from infra import storage
from infra.config import Section
from infra.errors import UserError, one_line

LONG_SIDE_PX = 256
"""Size of the analysed frames; fixed, since motion's scale and the cuts depend on it."""


_UNKNOWN = (
    *(
        "video_id",
        "reason",
        "detail",
        "media",
        "size_bytes",
        "duration_s",
        "fps",
        "width",
        "height",
    ),
    *("frames", "codec", "transfer", "decoder"),
)


class AnalysisConfig(Section):
    """How videos are cut into clips, and which clips are kept."""

    scenes: ScenesConfig = Field(default_factory=ScenesConfig)
    """Where shots begin."""
    filters: FiltersConfig = Field(default_factory=FiltersConfig)
    """Which clips are kept."""
    decode: DecodeLimits = Field(default_factory=DecodeLimits)
    """What a video may cost before it is given up."""
    thumbnail_width_px: Annotated[int, Field(ge=16, le=192)] = 192
    """The most pixels across a thumbnail."""

    def fingerprint(self) -> str:
        """Return 16 hex digits over what decides where clips begin and end.

        Thresholds that only keep or filter do not count: moving one leaves every clip its id.
        """
        deciding = {
            "scenes": self.scenes.model_dump(),
            **self.filters.duration.model_dump(include=set(duration.CUTTING)),
            "long_side_px": LONG_SIDE_PX,
        }
        return _digest(json.dumps(deciding, sort_keys=True))[:16]


def source_id(uri: str) -> str:
    """Return the id of an input: the sha256 of its URI, 64 hex digits."""
    return _digest(uri)


def clip_id(video_id: str, start_frame: int, end_frame: int, fingerprint: str) -> str:
    """Return the id of a clip: 32 hex digits over the video's bytes, the span and the config."""
    return _digest(f"{video_id}:{start_frame}:{end_frame}:{fingerprint}")[:32]


def analyse(
    uri: str,
    caption: str | None,
    config: AnalysisConfig,
    *,
    extra: str | None = None,
    damage: str | None = None,
    size_bytes: int | None = None,
) -> dict[str, Any]:
    """Return the row of the clip table of one input; a bad file becomes a row with a reason.

    Args:
        uri: of the video or image; it need not exist or be either.
        caption: of the whole video, or None.
        config: how to cut and what to keep.
        extra: the manifest's further columns, as the text of a JSON object.
        damage: what is wrong with the archive, so that nothing can be read; None: read it.
        size_bytes: of the file, where it is known; None: ask storage.

    Raises:
        Unavailable: storage does not answer, which is no verdict on the video.
    """
    begun_s = time.process_time()
    used = Usage()
    row: dict[str, Any] = dict.fromkeys(_UNKNOWN)
    row |= {"source_id": source_id(uri), "uri": uri, "caption": caption, "extra": extra}
    try:
        if damage is not None:
            raise DecodeError("damaged_archive", damage)
        row |= _analyse(uri, size_bytes, config, used, row)
    except DecodeError as error:
        row |= _quarantined(error.reason, error.detail)
    except storage.Unavailable:
        raise
    except UserError as error:  # storage's: not found, no permission, no such scheme
        row |= _quarantined("missing", str(error))
    except Exception as error:  # the boundary: one video must not stop the others
        row |= _quarantined("decode_error", f"{type(error).__name__}: {error}")
    own_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row["cpu_seconds"] = round(time.process_time() - begun_s + used.cpu_seconds, 4)
    row["peak_rss_bytes"] = own_rss + used.peak_rss_bytes
    return row


def _quarantined(reason: str, detail: str) -> dict[str, Any]:
    text = one_line(ValueError(detail.encode(errors="replace").decode()))
    return {"status": "quarantined", "reason": reason, "detail": text, "clips": []}


def _analyse(
    uri: str, size_bytes: int | None, config: AnalysisConfig, used: Usage, row: dict[str, Any]
) -> dict[str, Any]:
    """Fill `row` as facts become known, so that a failure later on keeps them."""
    most_bytes = config.decode.copy_bytes
    if size_bytes is None and storage.is_copied(uri):
        size_bytes = storage.size_bytes(uri)
    if size_bytes is not None and storage.is_copied(uri) and size_bytes > most_bytes:
        row["size_bytes"] = size_bytes
        raise DecodeError("too_large", f"{size_bytes} bytes; decode.copy_bytes is {most_bytes}")
    with storage.local_copy(uri) as path:
        if (found := probe.problem(path)) is not None and found[0] != "truncated":
            row["size_bytes"] = 0 if found[0] == "empty" else None
            raise DecodeError(*found)
        row["size_bytes"] = path.stat().st_size
        row["video_id"] = file_digest(path)[:32]
        decoder = Decoder(path, config.decode)
        try:
            info = decoder.probe()
            row |= {
                "media": info.media,
                "duration_s": info.duration_s,
                "fps": info.fps or None,
                "width": info.width_px,
                "height": info.height_px,
                "frames": info.frames or None,
                "codec": info.codec,
                "transfer": info.transfer or None,
            }
            frames = decoder.frames(long_side_px=LONG_SIDE_PX)
            if info.media == "image":
                [frame] = frames
                clips = [_clip_of_image(frame, info, row["video_id"], config)]
                seen = {}
            else:
                survey = Survey(info, config)
                for chunk in frames:
                    survey.push(chunk)
                clips = survey.finish(row["video_id"])
                seen = {
                    "duration_s": survey.duration_s,
                    "frames": survey.frames,
                    "detail": survey.detail(decoder.lost),
                }
        finally:
            decoder.close()
            used.cpu_seconds += decoder.usage.cpu_seconds
            used.peak_rss_bytes = decoder.usage.peak_rss_bytes
    reason = filters.verdict_on_video([clip["reason"] for clip in clips])
    return {
        "status": "kept" if reason is None else "filtered",
        "reason": reason,
        **seen,
        "decoder": decoder.decoder,
        "clips": clips,
    }


class Survey:
    """Takes a film's frames in order and gathers its clips, their scores and thumbnails."""

    def __init__(self, info: VideoInfo, config: AnalysisConfig) -> None:
        self._info, self._config = info, config
        self._cuts, self._cuts_begin = CutFinder(info.fps, config.scenes), 0
        self._times = array("d")
        self._shot_begins = 0
        self._gaps, self._gaps_s = 0, 0.0
        self._candidates = Candidates(config.thumbnail_width_px)
        self._measurements = Measurements(info)
        self._next_sample_s = 0.0
        self._found: list[tuple[Scene, bytes | None]] = []

    @property
    def frames(self) -> int:
        """Frames seen so far."""
        return len(self._times)

    @property
    def duration_s(self) -> float:
        """Seconds seen so far, the last frame's included and gaps left out."""
        return self._end_s - self._gaps_s if self._times else 0.0

    @property
    def _end_s(self) -> float:
        """When the last frame ends: it stands as long as others, or as the one before it."""
        usual_s, times = 1 / self._info.fps, self._times
        before_s = times[-1] - times[-2] if len(times) > self._cuts_begin + 1 else usual_s
        return times[-1] + (before_s if before_s < 0.75 * usual_s else usual_s)

    def detail(self, lost: int) -> str | None:
        """Say what is not in the clips, given how many frames were lost to damage."""
        said = [f"{lost} frames lost to damage"] if lost else []
        said += [f"{self._gaps} gaps of {self._gaps_s:.1f} s in all"] if self._gaps else []
        return ", ".join(said) or None

    def push(self, chunk: FrameChunk) -> None:
        """Take the next frames."""
        pictures = zip(chunk.timestamps_s, chunk.frames_THWC, strict=True)
        for place, (time_s, frame_HWC) in enumerate(pictures):
            number = len(self._times)
            if place in chunk.breaks and self._times:
                self._break(float(time_s))
            self._times.append(float(time_s))
            if time_s >= self._next_sample_s - 1e-6:
                self._sample(number, frame_HWC)
                self._next_sample_s += 1 / motion.SAMPLES_PER_SECOND
                if time_s >= self._next_sample_s:  # a gap in the timestamps
                    self._next_sample_s = float(time_s) + 1 / motion.SAMPLES_PER_SECOND
            for cut in self._cuts.push(frame_HWC):
                self._close_shot(self._cuts_begin + cut)

    def _break(self, next_s: float) -> None:
        """End the last shot with its last frame; the next one has nothing to do with it."""
        self._close_last_shot()
        self._gaps, self._gaps_s = self._gaps + 1, self._gaps_s + max(0.0, next_s - self._end_s)
        self._cuts = CutFinder(self._info.fps, self._config.scenes)
        self._cuts_begin = len(self._times)

    def _close_last_shot(self) -> None:
        for cut in self._cuts.finish():
            self._close_shot(self._cuts_begin + cut)
        self._close_shot(len(self._times))

    def finish(self, video_id: str) -> list[dict[str, Any]]:
        """Return the clips as rows of the table's list."""
        self._close_last_shot()
        fingerprint = self._config.fingerprint()
        return [
            _clip(
                clip_id(video_id, scene.start_frame, scene.end_frame, fingerprint),
                *(scene, jpeg, self._measurements, self._config),
            )
            for scene, jpeg in self._found
        ]

    def _sample(self, number: int, frame_HWC: np.ndarray) -> None:
        self._measurements.add(number, frame_HWC)
        self._candidates.add(number, frame_HWC)

    def _close_shot(self, end_frame: int) -> None:
        begins, times = self._shot_begins, self._times
        if end_frame <= begins:
            return
        end_s = times[end_frame] if end_frame < len(times) else self._end_s
        shot = Scene(begins, end_frame, times[begins], end_s)
        shot_times = times[begins:end_frame].tolist()
        for clip in duration.windows(shot, shot_times, self._config.filters.duration):
            jpeg = self._candidates.middle(clip.start_frame, clip.end_frame)
            self._found.append((clip, jpeg))
        self._candidates.forget_before(end_frame)
        self._shot_begins = end_frame


def _clip_of_image(
    chunk: FrameChunk, info: VideoInfo, video_id: str, config: AnalysisConfig
) -> dict[str, Any]:
    """Return the one clip of an image: a frame at 0 s that lasts no time.

    No setting decides where it begins or ends, so none counts in its id.
    """
    frame_HWC = chunk.frames_THWC[0]
    measurements = Measurements(info)
    measurements.add(0, frame_HWC)
    jpeg = thumbnails.jpeg(frame_HWC, config.thumbnail_width_px)
    return _clip(
        clip_id(video_id, 0, 1, info.media), Scene(0, 1, 0.0, 0.0), jpeg, measurements, config
    )


def _clip(
    name: str,
    clip: Scene,
    jpeg: bytes | None,
    measurements: Measurements,
    config: AnalysisConfig,
) -> dict[str, Any]:
    scores, box, phash = measurements.of(clip)
    reason = filters.verdict(scores, config.filters)
    return {
        "clip_id": name,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "start_frame": clip.start_frame,
        "end_frame": clip.end_frame,
        "status": "kept" if reason is None else "filtered",
        "reason": reason,
        "scores": scores,
        "crop_box": box and vars(box),
        "phash": phash,
        "thumbnail": jpeg,
    }


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
