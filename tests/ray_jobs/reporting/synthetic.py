"""Small artifacts of every kind in their real shape, for tests of the report and for a look at it.

`python -m tests.ray_jobs.reporting.synthetic DIR` writes them below DIR, with a report of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data_prep import thumbnails
from data_prep.encode import Mp4Writer
from data_prep.schemas import CLIP_TABLE
from infra import artifact, config
from ray_jobs import evaluate, report, video_table
from ray_jobs.training.pictures import png

HOSTILE = '<script>alert("x")</script> & "ü".mp4'
STAGES = (("images", 60), ("short_clips", 60), ("long_clips", 80))


def mark(folder: Path, kind: str, summary: dict[str, Any], seconds: float, config: Any) -> str:
    """Write what makes a directory a finished artifact, and return its URI."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    (folder / "summary.json").write_text(json.dumps(summary))
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    marker = {
        "kind": kind,
        "schema_version": artifact.SCHEMA_VERSION,
        "fingerprint": hashlib.sha256(str(folder).encode()).hexdigest()[:16],
        "counts": {k: v for k, v in summary.items() if isinstance(v, int)},
        "seconds": seconds,
        "files": len(sizes),
        "size_bytes": sum(sizes),
    }
    (folder / "artifact.json").write_text(json.dumps(marker))
    return str(folder)


def picture(phase: float, height: int = 90, width: int = 160) -> np.ndarray:
    """A landscape of gradients with a moving sun, uint8 (H, W, 3)."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : width / height : width * 1j]
    sun = np.exp(-80 * ((x - 0.3 - 0.9 * (0.5 + 0.5 * math.sin(phase))) ** 2 + (y - 0.35) ** 2))
    hill = 1 / (1 + np.exp(-40 * (y - 0.65 - 0.08 * np.sin(5 * x + phase))))
    red = 90 + 120 * sun + 40 * y - 60 * hill
    green = 110 + 90 * sun + 10 * np.cos(phase) - 25 * hill
    blue = 170 - 80 * y + 30 * sun - 90 * hill
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)


def clips(
    root: Path,
    videos: int = 6,
    clips_each: int = 14,
    row_group_size: int = 2,
    score_only: bool = False,
) -> str:
    """A clip table: kept and rejected clips, quarantined inputs, a hostile file name."""
    folder = root / "clips"
    (folder / "clips").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    rejected: dict[str, int] = {}
    kept_clips = 0
    for v in range(videos):
        made = []
        for c in range(clips_each):
            duration, motion, luma = rng.gamma(4, 1.2), rng.gamma(2, 3.0), rng.uniform(4, 190)
            reason = "too_short" if duration < 2 else "too_dark" if luma < 12 else None
            reason = reason or ("still" if motion < 0.9 else None)
            if reason:
                rejected[reason] = rejected.get(reason, 0) + 1
            kept_clips += reason is None
            bars = 0.25 if v == 2 else 0.0
            jpeg = thumbnails.jpeg(
                np.clip(picture(v + 0.4 * c) * (luma / 120), 0, 255).astype(np.uint8)
            )
            made.append(
                {
                    "clip_id": f"{v:016x}{c:016x}",
                    "start_s": 7.0 * c,
                    "end_s": 7.0 * c + duration,
                    "start_frame": 168 * c,
                    "end_frame": 168 * c + int(24 * duration),
                    "status": "filtered" if reason else "kept",
                    "reason": reason,
                    "scores": {
                        "duration_s": duration,
                        "short_side_px": 720.0,
                        "aspect_ratio": 16 / 9,
                        "fps": 24.0,
                        "hdr": 0.0,
                        "black_share": 0.0 if c else 0.25,
                        "brightness": luma,
                        "letterbox_share": bars,
                        "motion": motion,
                        "sharpness": rng.gamma(3, 150.0),
                        "unsafe": rng.uniform(0, 0.4),
                        "text_area": rng.uniform(0, 0.2),
                        "caption_similarity": rng.uniform(0.1, 0.35),
                        "aesthetic": rng.uniform(3, 7),
                    },
                    "crop_box": {"x": 0.0, "y": bars / 2, "width": 1.0, "height": 1 - bars},
                    "phash": f"{v:08x}{c:08x}",
                    "thumbnail": jpeg,
                }
            )
        rows.append(_row(v, f"/films/film {v}.mp4", "kept", clips=made))
    rows[0]["uri"] = f"/films/{HOSTILE}"
    rows[0]["caption"] = "<b>bold</b>"
    rows.append(_row(90, "/films/postage stamp.mp4", "filtered", "low_resolution"))
    rows.append(_row(91, "/films/kopie von film 1.mp4", "filtered", "duplicate"))
    rows.append(_row(92, "/films/leer ä ö.mp4", "quarantined", "empty", "0 bytes"))
    rows.append(
        _row(
            93,
            f"/films/text {HOSTILE}",
            "quarantined",
            "not_a_video",
            "Invalid data found when processing input <img src=x onerror=alert(1)>",
        )
    )
    rows.append(
        _row(
            94,
            "/films/cut off.mp4",
            "quarantined",
            "truncated",
            "partial file: 61 of 240 frames read before the end of the data",
        )
    )
    table = pa.Table.from_pylist(rows, schema=CLIP_TABLE)
    for number, part in enumerate((table.slice(0, 3), table.slice(3))):
        file = folder / "clips" / f"part-{number}.parquet"
        pq.write_table(part, file, row_group_size=row_group_size)
    summary = {
        "inputs": len(rows),
        "kept": videos,
        "filtered": {"low_resolution": 1, "duplicate": 1},
        "quarantined": {"empty": 1, "not_a_video": 1, "truncated": 1},
        "clips": kept_clips,
        "clips_filtered": rejected,
        "source_seconds": 98.0 * videos,
        "cpu_seconds": 61.3,
        "peak_rss_bytes": 284_000_000,
    }
    filters = {
        "duration": {"min_s": 2.0, "max_s": 60.0},
        "resolution": {"min_short_side_px": 144},
        "aspect": {"min_ratio": 0.33, "max_ratio": 3.0},
        "frame_rate": {"min_fps": 10.0, "max_fps": 125.0},
        "black": {"max_share": 0.3},
        "brightness": {"min_luma": 12.0},
        "letterbox": {"max_share": 1.0},
        "motion": {"min_score": 0.9, "max_score": 255.0},
        "blur": {"min_sharpness": 20.0},
        "score_only": score_only,
    }
    return mark(folder, "clips", summary, 84.2, {"analysis": {"filters": filters}})


def shards(root: Path, kind: str) -> str:
    """An artifact of kind "frames" or "tokens"; the report reads only its summary."""
    folder = root / kind
    folder.mkdir(parents=True)
    summary = {
        "clips": 71,
        "windows": {"17": 71},
        "tokens": 90_880,
        "codebook_size": 512,
        "codebook_used": 431,
        "unigram_entropy_nats": 5.31,
    }
    return mark(folder, kind, summary, 41.0 if kind == "frames" else 12.5, {"fps": 12.0})


def tokenizer(root: Path, psnr_db: float = 24.6, used: int = 431, late_loss_db: float = 0.7) -> str:
    """A trained tokenizer's log, summary and picture."""
    folder = root / "tokenizer"
    (folder / "samples").mkdir(parents=True)
    records = []
    for step, stage in _steps(STAGES[:2]):
        loss = 0.05 + 0.3 * math.exp(-step / 30) + (0.03 if stage == "short_clips" else 0)
        records.append(_record(step, stage, "train", loss, frames_per_second=40.0 + step % 7))
        if step % 20 == 0:
            records.append(
                _record(
                    step,
                    stage,
                    "validation",
                    loss * 1.05,
                    codebook_used=min(512, 3 * step + 60),
                    psnr_db=psnr_db - 9 * math.exp(-step / 40),
                )
            )
    _log(folder, records)
    frames = [picture(0.5 * i, 64, 96) for i in range(12)]
    blurred = [frame // 8 * 8 for frame in frames]
    (folder / "samples" / "validation.png").write_bytes(png([frames, blurred]))
    summary = {
        "parameters": 1_284_355,
        "steps": 120,
        "validation": {
            "clips": 8,
            "windows": 12,
            "psnr_db": psnr_db,
            "psnr_constant_colour_db": 15.9,
            "psnr_early_frames_db": psnr_db,
            "psnr_late_frames_db": psnr_db - late_loss_db,
            "codebook_size": 512,
            "codebook_used": used,
            "codebook_perplexity": 203.7,
        },
    }
    return mark(folder, "tokenizer", summary, 251.7, {"model": {"channels": 32}})


def autoregressive(root: Path, loss_nats: float = 4.41) -> str:
    """A trained autoregressive model's log and summary."""
    folder = root / "autoregressive"
    folder.mkdir(parents=True)
    records = []
    ranges = ("1", "2_17", "18_49", "50_65")
    for step, stage in _steps(STAGES):
        base = loss_nats + 2.6 * math.exp(-step / 40)
        present = {"images": 1, "short_clips": 2, "long_clips": 4}[stage]
        parts = {f"loss_frames_{r}": base + 0.5 - 0.25 * i for i, r in enumerate(ranges[:present])}
        records.append(
            _record(
                step,
                stage,
                "train",
                base * 1.1,
                loss_nats=base,
                tokens_per_second=900.0 + step % 13,
                **parts,
            )
        )
        if step % 20 == 0:
            records.append(
                _record(
                    step,
                    stage,
                    "validation",
                    base + 0.1,
                    loss_nats=base + 0.1,
                    **{k: v + 0.1 for k, v in parts.items()},
                )
            )
    _log(folder, records)
    last = {f"loss_frames_{r}": loss_nats + 0.4 - 0.2 * i for i, r in enumerate(ranges)}
    summary = {
        "parameters": 5_702_144,
        "steps": 200,
        "validation": {"loss_nats": loss_nats, "unigram_entropy_nats": 5.31, **last},
    }
    return mark(folder, "autoregressive", summary, 322.0, {"stages": [s for s, _ in STAGES]})


def videos(root: Path, still: bool = False, prompt: str = "a big rabbit in a meadow") -> str:
    """Generated videos: a wide one with four joins, and a small one with none."""
    folder = root / "videos"
    (folder / "videos").mkdir(parents=True)
    rows = [
        _video(folder, "0000.mp4", 146, (90, 160), prompt, [49, 82, 114, 130], still),
        _video(folder, "0001.mp4", 34, (64, 64), HOSTILE, [], still),
    ]
    video_table.write(str(folder), rows)
    return mark(folder, "videos", {"videos": 2}, 73.4, {"prompts": [prompt, HOSTILE]})


def film(root: Path) -> str:
    """Held-out film: three clips in which nothing is lost."""
    folder = root / "film"
    (folder / "videos").mkdir(parents=True)
    rows = []
    for number, frames in enumerate((146, 60, 48)):
        made = _video(folder, f"{number:04d}.mp4", frames, (90, 160), "a film", [], False)
        about = {"seed": None, "trained_frames": None, "models": {}}
        rows.append({**made, **about, "settings": {"kind": video_table.HELD_OUT}})
    video_table.write(str(folder), rows)
    return mark(folder, "videos", {"videos": 3}, 4.0, {})


def measures(root: Path, source: str, name: str = "measures") -> str:
    """The measures of videos, made by the job's own worker without a cluster."""
    settings = config.build(
        evaluate.EvaluateConfig, {"input": [source], "output": str(root / name)}
    )
    output = artifact.begin("measures", settings)
    parts, worker = evaluate.work_of(settings, output)
    for part in range(parts.count):
        worker.build(**worker.arguments)(part)
    summary = evaluate.run(settings, output)  # nothing is left for a cluster
    artifact.finish(output, "measures", summary, time.monotonic())
    return output.uri


def every(root: Path) -> list[str]:
    """One artifact of each kind."""
    made = videos(root)
    return [
        clips(root),
        shards(root, "frames"),
        tokenizer(root),
        shards(root, "tokens"),
        autoregressive(root),
        made,
        measures(root, made),
        measures(root, film(root), "film_measures"),
    ]


def _row(
    number: int,
    uri: str,
    status: str,
    reason: str | None = None,
    detail: str | None = None,
    clips: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    read = status != "quarantined"
    return {
        "source_id": f"{number:064x}",
        "video_id": f"{number:032x}" if read else None,
        "uri": uri,
        "caption": None,
        "status": status,
        "reason": reason,
        "detail": detail,
        "size_bytes": 1 << 20,
        "duration_s": 98.0 if read else None,
        "fps": 24.0 if read else None,
        "width": 1280 if read else None,
        "height": 720 if read else None,
        "frames": 2352 if read else None,
        "codec": "h264" if read else None,
        "decoder": "decord" if read else None,
        "cpu_seconds": 9.0,
        "peak_rss_bytes": 200_000_000,
        "clips": list(clips),
    }


def _video(
    folder: Path,
    name: str,
    frames: int,
    size: tuple[int, int],
    prompt: str,
    joins: list[int],
    still: bool,
) -> dict[str, Any]:
    height, width = size
    rng = np.random.default_rng(0)
    grain = rng.integers(-6, 7, (height, width, 1))
    with Mp4Writer(folder / "videos" / name, 12.0, width, height) as writer:
        for i in range(frames):
            passes = 0 if still else sum(join <= i for join in joins)
            frame = picture(0 if still else 0.12 * i, height, width) + grain * (4 - passes)
            writer.write(np.clip(frame + 4 * passes, 0, 255).astype(np.uint8))
    return {
        "video_id": hashlib.sha256(name.encode()).hexdigest()[:32],
        "prompt": prompt,
        "file": f"videos/{name}",
        "seed": 7,
        "frames": frames,
        "fps": 12.0,
        "height": height,
        "width": width,
        "joins": joins,
        "trained_frames": 65,
        "models": {"tokenizer": "0" * 16, "autoregressive": "1" * 16},
        "settings": {"kind": "toy", "sampling": {"top_k": 50, "temperature": 1.0}},
        "seconds": 20.0,
    }


def _steps(stages: Sequence[tuple[str, int]]) -> list[tuple[int, str]]:
    names = [name for name, steps in stages for _ in range(steps)]
    return [(step, name) for step, name in enumerate(names, 1) if step % 5 == 0]


def _record(step: int, stage: str, split: str, loss: float, **more: float) -> dict[str, Any]:
    return {"step": step, "stage": stage, "split": split, "loss": loss, **more}


def _log(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    still = target / "still"
    uris = [*every(target), measures(target, videos(still, still=True), "measures_of_still")]
    credit = "Big Buck Bunny (c) Blender Foundation, CC-BY 3.0"
    page = {"input": uris, "output": str(target / "report"), "credits": [credit]}
    filled = config.build(report.ReportConfig, page)
    report.run(filled, artifact.begin("report", filled))
