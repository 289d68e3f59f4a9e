"""Evaluate finished artifacts: metrics.json, curves over time as PNG, and one HTML report.

input: finished artifacts of the kinds clips, pixels, tokens, tokenizer, autoregressive, videos, in
any order, at most one of each; the report has a section for each that is given. Generated videos
are measured as Ray tasks. A metric that needs weights which were not given is named as not
measured and never has a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import ray
from pydantic import Field

from data_prep import thumbnails
from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig
from infra.errors import UserError, one_line
from infra.job import Job, main
from infra.progress import Progress
from models.evaluation import motion
from ray_jobs import video_table
from ray_jobs.reporting import build, charts, generated, headline
from ray_jobs.reporting.contact_sheet import evenly
from ray_jobs.reporting.inputs import Artifact, read_all

Measured = tuple[dict[str, Any], list[bytes]]
"""A record of metrics.json, and film strip frames as JPEG."""
METRICS_VERSION = 1
SCALES = {
    "motion": "mean absolute difference of consecutive frames, RGB, 0-255",
    "brightness": "mean Rec. 601 luma, 0-255",
    "sharpness": "variance of the 4-neighbour Laplacian of luma, mean over frames",
    "colour_distance": "distance of the mean RGB colour to the first window's, 0-442",
}
VIDEO_FIGURES = ("motion", "colour_drift", "join_colour_drift", "sharpness_ratio")
NOT_MEASURED = ("FVD (needs I3D or VideoMAE weights)", "CLIPSIM (needs CLIP weights)")


class EvaluateConfig(JobConfig):
    """Settings of `evaluate`."""

    title: Annotated[str, Field(min_length=1, max_length=120)] = "From film to generated video"
    """Heading of the report."""
    credits: tuple[str, ...] = ()
    """Lines of credit for the films used, shown at the end of the report."""
    window_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds of video behind one point of a curve."""
    long_side_px: Annotated[int, Field(ge=16)] = 256
    """Frames are measured at most this large; smaller videos at their own size."""
    max_measured_frames: Annotated[int, Field(ge=1)] = 8192
    """Frames measured of one video, from its start; bounds memory."""
    strip_frames: Annotated[int, Field(ge=0, le=64)] = 10
    """Frames in a video's film strip; 0 leaves it out."""
    thumbnails_per_group: Annotated[int, Field(ge=1)] = 36
    """Clips shown of the kept and of each reason of rejection, evenly spaced."""
    max_videos: Annotated[int, Field(ge=1)] = 24
    """Videos shown in the report; metrics.json has all."""
    max_video_mib: Annotated[float, Field(ge=0)] = 32.0
    """Largest video put into the page; a larger one becomes a link."""
    max_page_mib: Annotated[float, Field(ge=0)] = 96.0
    """Most MiB of video put into the page altogether."""
    decode: DecodeLimits = DecodeLimits()
    """What reading one video may cost."""


def plan(config: EvaluateConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    artifacts = read_all(config.input)
    lines = [f"read {kind} {artifact.uri}" for kind, artifact in artifacts.items()]
    if "videos" in artifacts:
        count = len(video_table.read(artifacts["videos"].uri))
        lines.append(f"measure {count} videos, one curve point every {config.window_s:g} s")
    return [*lines, "write metrics.json, curves/*.png and report.html"]


def run(config: EvaluateConfig, output: Output) -> dict[str, Any]:
    """Measure the videos as Ray tasks, then write everything; returns the summary."""
    artifacts = read_all(config.input)
    measured = _measure_all(artifacts["videos"], config) if "videos" in artifacts else []
    return write(config, output, artifacts, measured)


def write(
    config: EvaluateConfig,
    output: Output,
    artifacts: Mapping[str, Artifact],
    measured: Sequence[Measured],
) -> dict[str, Any]:
    """Write curves, report and metrics.json; returns the summary.

    Args:
        config: The job's settings.
        output: The running job's output.
        artifacts: The inputs by kind.
        measured: What `measure` gave for each video, in the order of the table.
    """
    videos = [record for record, _ in measured]
    strips = {record["video_id"]: strip for record, strip in measured if strip}
    for video in videos:
        if panels := generated.panels(video):
            heading = f"{video['file']}, {video['frames']} frames at {video['fps']:g} fps"
            png = charts.panel_png(panels, heading=heading)
            storage.write_bytes(output.path("curves", _stem(video["file"]) + ".png"), png)
    figures = headline.figures(artifacts, videos)
    page = build.build(
        artifacts,
        videos[: config.max_videos],
        strips,
        figures,
        title=config.title,
        credits=config.credits,
        not_measured=NOT_MEASURED,
        thumbnails_per_group=config.thumbnails_per_group,
        max_video_mib=config.max_video_mib,
        max_page_mib=config.max_page_mib,
    )
    storage.write_text(output.path("report.html"), page)
    headlines = [asdict(figure) for figure in figures]
    storage.write_json(
        output.path("metrics.json"),
        {
            "version": METRICS_VERSION,
            "headline": headlines,
            "videos": videos,
            "not_measured": NOT_MEASURED,
            "fingerprints": {kind: a.info.fingerprint for kind, a in artifacts.items()},
        },
    )
    return {
        "artifacts": len(artifacts),
        "videos": len(videos),
        "unreadable_videos": sum(video["problem"] is not None for video in videos),
        "report_bytes": len(page.encode()),
        "headline": {figure["name"]: figure["verdict"] for figure in headlines},
    }


def measure(uri: str, row: Mapping[str, Any], config: EvaluateConfig) -> Measured:
    """Measure one generated video.

    Args:
        uri: Its file.
        row: Its row of videos.parquet.
        config: The job's settings.

    Returns:
        The record for metrics.json, and the film strip as JPEG frames. In the record `motion` is
        None and `problem` says why when the file cannot be read; `windows` has a mapping of
        figures for every `window_s` seconds; `conventions` says how they were measured.
    """
    record = _describe(row)
    try:
        with storage.local_copy(uri) as path, Decoder(path, config.decode) as decoder:
            frames_THWC, truncated = _read(decoder, config)
    except DecodeError as error:
        return {**record, "problem": one_line(error)}, []
    record["conventions"] = {
        "decoder": decoder.decoder or config.decode.decoders[0],
        "measured_frames": len(frames_THWC),
        "all_frames": not truncated,
        "fps": record["fps"],
        "window_s": config.window_s,
        "measured_height_px": frames_THWC.shape[1],
        "measured_width_px": frames_THWC.shape[2],
        "scales": SCALES,
    }
    if len(frames_THWC) > 1:
        record["motion"] = motion.motion_energy(frames_THWC)
    record["windows"] = _windows(frames_THWC, record["fps"], config.window_s)
    strip = [thumbnails.jpeg(frames_THWC[i]) for i in evenly(len(frames_THWC), config.strip_frames)]
    return record, strip


def figures_of(uri: str) -> dict[str, float]:
    """Return what sweeps and ablations compare, means over the videos of an artifact.

    ``motion`` (0 to 255); ``colour_drift``, how far the last window's mean colour is from the first
    one's (0 to 442); ``join_colour_drift``, the same over joins alone, absent where there are none;
    ``sharpness_ratio``, the last window's sharpness over the first one's.

    Args:
        uri: a finished artifact of kind ``videos``.

    Raises:
        UserError: a video cannot be read, or has a single frame.
    """
    settings = EvaluateConfig(input=(uri,), output=uri)
    found: dict[str, list[float]] = {name: [] for name in VIDEO_FIGURES}
    for row in video_table.read(uri):
        record, _ = measure(storage.join(uri, row["file"]), row, settings)
        if record["problem"] is not None or record["motion"] is None:
            raise UserError(f"{row['file']}: {record['problem'] or 'a single frame'}")
        first, last = record["windows"][0], record["windows"][-1]
        found["motion"].append(record["motion"])
        found["colour_drift"].append(last["colour_distance"])
        found["sharpness_ratio"].append(last["sharpness"] / max(first["sharpness"], 1e-9))
        found["join_colour_drift"] += row["join_colour_drift"] or []
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _measure_all(artifact: Artifact, config: EvaluateConfig) -> list[Measured]:
    """Measure every video of an artifact, at most `resources.workers` at once, in table order."""
    task = ray.remote(measure).options(
        num_cpus=config.resources.cpus_per_worker, num_gpus=config.resources.gpus_per_worker
    )
    rows = video_table.read(artifact.uri)
    waiting = deque(enumerate(rows))
    running: dict[Any, int] = {}
    measured: dict[int, Measured] = {}
    with Progress(len(rows), "evaluate", "videos") as progress:
        while waiting or running:
            while waiting and len(running) < config.resources.workers:
                index, row = waiting.popleft()
                uri = storage.join(artifact.uri, row["file"])
                running[task.remote(uri, row, config)] = index
            done, _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done[0])
            record, strip = ray.get(done[0])
            measured[index] = record, strip if index < config.max_videos else []
            progress.advance()
    return [measured[index] for index in sorted(measured)]


def _windows(frames_THWC: np.ndarray, fps: float, window_s: float) -> list[dict[str, float]]:
    curves = asdict(motion.per_window(frames_THWC, fps, window_s=window_s))
    rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    ends = [*curves["start_s"][1:], len(frames_THWC) / fps]
    return [{**row, "end_s": end} for row, end in zip(rows, ends, strict=True)]


def _read(decoder: Decoder, config: EvaluateConfig) -> tuple[np.ndarray, bool]:
    chunks, count = [], 0
    for chunk in decoder.frames(long_side_px=config.long_side_px):
        chunks.append(chunk.frames_THWC[: config.max_measured_frames - count])
        count += len(chunks[-1])
        if count >= config.max_measured_frames:
            break
    return np.concatenate(chunks), count < (decoder.probe().frames or count)


def _describe(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "video_id": row["video_id"],
        "file": row["file"],
        "prompt": row.get("prompt"),
        "seed": row.get("seed"),
        "frames": row["frames"],
        "fps": row["fps"],
        "height_px": row["height"],
        "width_px": row["width"],
        "joins": list(row.get("joins") or ()),
        "trained_frames": row.get("trained_frames"),
        "sampling": {
            key: row[key]
            for key in ("top_k", "temperature", "guidance_scale", "strategy", "reencode_frames")
            if row.get(key) is not None
        },
        "motion": None,
        "windows": [],
        "conventions": {},
        "problem": None,
    }


def _stem(file: str) -> str:
    return storage.name(file).rsplit(".", 1)[0]


JOB = Job("evaluate", "report", EvaluateConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
