"""Measurements: each clip is scored on its own samples, on films altered in known ways."""

import io

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import filters, phash
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.filters import FiltersConfig
from data_prep.filters.black import BlackConfig
from data_prep.filters.blur import BlurConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.letterbox import LetterboxConfig
from data_prep.filters.motion import MotionConfig
from data_prep.measurements import Measurements
from data_prep.scenes import AdaptiveConfig, ScenesConfig
from data_prep.schemas import CLIP_TABLE
from data_prep.types import Scene, VideoInfo

STRICT = FiltersConfig(
    black=BlackConfig(max_share=0.3),
    letterbox=LetterboxConfig(max_share=0.2),
    motion=MotionConfig(min_score=0.0),
)


UNCUT = ScenesConfig(detector=AdaptiveConfig(min_content=255.0))


def _analyse(
    path: str, config: FiltersConfig = STRICT, scenes: ScenesConfig | None = None
) -> list[dict]:
    row = analyse(path, None, AnalysisConfig(filters=config, scenes=scenes or ScenesConfig()))
    assert row["status"] != "quarantined", row["detail"]
    return row["clips"]


def test_bars_are_stored_with_their_crop_box(pictures, write_film) -> None:
    bunny = pictures["bigbuckbunny"][:120]
    (plain,) = _analyse(write_film("plain", bunny))
    assert plain["status"] == "kept"
    assert plain["crop_box"] == {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0}
    assert plain["scores"]["letterbox_share"] == 0
    barred = write_film("barred", np.pad(bunny, ((0, 0), (24, 24), (0, 0), (0, 0))))
    (clip,) = _analyse(barred)
    assert clip["reason"] == "letterbox"
    assert clip["crop_box"]["x"] == 0
    assert clip["crop_box"]["y"] == pytest.approx(24 / 192, abs=2 / 192)
    assert clip["crop_box"]["height"] == pytest.approx(144 / 192, abs=4 / 192)
    assert clip["scores"]["letterbox_share"] == pytest.approx(48 / 192, abs=0.025)
    (kept,) = _analyse(barred, FiltersConfig())
    assert kept["status"] == "kept"
    assert kept["scores"] == clip["scores"]


def test_a_clip_that_fades_is_black_and_not_dark(pictures, write_film) -> None:
    film = pictures["bigbuckbunny"][:120]
    light = np.clip((70 - np.arange(120)) / 40, 0, 1)  # black from frame 70 on
    faded = write_film("faded", np.uint8(film * light[:, None, None, None]))
    (clip,) = _analyse(faded, scenes=UNCUT)
    assert clip["reason"] == "black"
    assert clip["scores"]["black_share"] == pytest.approx(0.4, abs=0.11)
    (clip,) = _analyse(write_film("dark", np.uint8(film * 0.1)), scenes=UNCUT)
    assert clip["scores"]["black_share"] == 1
    (clip,) = _analyse(faded, FiltersConfig(black=BlackConfig(max_share=1.0)), UNCUT)
    assert clip["status"] == "kept"


def test_a_blurred_shot_is_told_from_the_sharp_one_beside_it(pictures, write_film) -> None:
    sharp = pictures["bikes"][:40]
    soft = np.stack(
        [cv2.GaussianBlur(frame, (0, 0), 3.0) for frame in pictures["bigbuckbunny"][:60]]
    )
    height, width = sharp.shape[1:3]
    soft = np.stack([cv2.resize(frame, (width, height)) for frame in soft])
    clips = _analyse(write_film("both", np.concatenate([soft, sharp])))
    assert clips[1]["start_frame"] == 60
    assert clips[0]["scores"]["sharpness"] < 0.2 * clips[1]["scores"]["sharpness"]


def test_a_copy_has_nearly_the_hash_and_another_shot_has_not(pictures, write_film) -> None:
    small = np.stack([cv2.resize(frame, (160, 90)) for frame in pictures["bigbuckbunny"]])
    hashes = {
        "bunny": _analyse(write_film("bunny", pictures["bigbuckbunny"])),
        "copy": _analyse(write_film("copy", small, crf=34)),
        "phone": _analyse(write_film("phone", pictures["carphone_pristine"])),
    }
    first = {name: int(clips[0]["phash"], 16) for name, clips in hashes.items()}
    assert (first["bunny"] ^ first["copy"]).bit_count() <= 8
    assert (first["bunny"] ^ first["phone"]).bit_count() >= 16


def test_verdicts_made_again_from_the_table_are_the_same(pictures, write_film) -> None:
    row = analyse(write_film("bikes", pictures["bikes"]), None, AnalysisConfig(filters=STRICT))
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row], schema=CLIP_TABLE), file)
    stored = [clip["scores"] for clip in pq.read_table(file).to_pylist()[0]["clips"]]
    assert stored == [clip["scores"] for clip in row["clips"]]
    assert [filters.verdict(s, STRICT) for s in stored] == [clip["reason"] for clip in row["clips"]]


def test_score_only_keeps_every_clip_and_still_splits_shots(pictures, write_film) -> None:
    path = write_film("bunny", pictures["bigbuckbunny"])
    windows = DurationConfig(min_s=2.0, max_s=2.5)
    strict = STRICT.model_copy(update={"duration": windows, "blur": BlurConfig(min_sharpness=1e9)})
    judged = _analyse(path, strict)
    kept = _analyse(path, strict.model_copy(update={"score_only": True}))
    assert {clip["status"] for clip in judged} == {"filtered"}
    assert {(clip["status"], clip["reason"]) for clip in kept} == {("kept", None)}
    assert len(kept) > 1
    for key in ("clip_id", "scores", "crop_box", "phash"):
        assert [clip[key] for clip in kept] == [clip[key] for clip in judged]


def test_the_hash_is_that_of_the_middle_sample(pictures) -> None:
    measurements = Measurements(VideoInfo(10.0, 25.0, 640, 272, 250, "h264"))
    samples = list(enumerate(pictures["bikes"]))[::12]
    for number, frame in samples:
        measurements.add(number, frame)
    for first, end in ((0, 30), (30, 137), (137, 187), (100, 250)):
        *_, found = measurements.of(Scene(first, end, first / 25, end / 25))
        inside = [frame for number, frame in samples if first <= number < end]
        middle = cv2.cvtColor(inside[len(inside) // 2], cv2.COLOR_RGB2GRAY)
        hashed = phash.phash(middle)
        assert hashed is not None
        assert found == phash.as_text(hashed)


def test_a_clip_without_a_sample_has_what_the_video_has() -> None:
    measurements = Measurements(VideoInfo(4.0, 25.0, 256, 144, 100, "h264"))
    for frame in (0, 13, 25):
        measurements.add(frame, np.full((144, 256, 3), 100 + frame, np.uint8))
    scores, box, hashed = measurements.of(Scene(14, 25, 0.56, 1.0))
    assert (box, hashed) == (None, None)
    known = {name for name, value in scores.items() if value is not None}
    assert known == {"duration_s", "short_side_px", "aspect_ratio", "fps", "hdr"}
    assert filters.verdict(scores, FiltersConfig(duration=DurationConfig(min_s=0.0))) is None
    scores, *_ = measurements.of(Scene(13, 26, 0.52, 1.04))
    assert scores["motion"] == 12  # the difference of frames 13 and 25 alone


def test_a_clip_whose_middle_is_flat_has_no_hash(pictures) -> None:
    measurements = Measurements(VideoInfo(4.0, 25.0, 640, 272, 100, "h264"))
    for number, light in enumerate((1.0, 0.0, 1.0)):
        measurements.add(number, (pictures["bikes"][0] * light).astype(np.uint8))
    *_, flat = measurements.of(Scene(0, 3, 0.0, 0.12))
    *_, lit = measurements.of(Scene(2, 3, 0.08, 0.12))
    assert flat is None
    assert lit is not None
