"""Films of a group of videos: written frame by frame as they come, and described row by row."""

import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from data_prep.encode import Mp4Writer
from infra import storage
from infra.config import as_tree
from ray_jobs import video_table
from ray_jobs.generation.requests import text_of
from ray_jobs.generation.system import FilmFormat, Frames, Group, VideoRequest
from ray_jobs.video_table import Row


def write(
    output_uri: str, group: Group, film: FilmFormat, models: dict[str, str], made: Iterable[Frames]
) -> list[Row]:
    """Write the films of a group below the output and return their rows of the table.

    Memory holds the frames that are handed out at once, however long the films.

    Args:
        output_uri: of the running job.
        group: the videos.
        film: what the films have in common.
        models: what each model is, and its fingerprint.
        made: the frames of all videos, from the first to the last.
    """
    begun_at = time.monotonic()
    drifts: list[list[float]] = [[] for _ in group.videos]
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        local = [Path(folder, f"{video.video_id}.mp4") for video in group.videos]
        with ExitStack() as opened:
            writers = [
                opened.enter_context(Mp4Writer(path, film.fps, film.width_px, film.height_px))
                for path in local
            ]
            for frames in made:
                if frames.join_colour_drift_B is not None:
                    for drift, value in zip(drifts, frames.join_colour_drift_B, strict=True):
                        drift.append(round(float(value), 3))
                for writer, frames_FHWC in zip(writers, frames.frames_BFHWC, strict=True):
                    for frame_HWC in frames_FHWC:
                        writer.write(frame_HWC)
            counts = {writer.frames for writer in writers}
            assert counts == {film.frames}, f"{counts} frames, not {film.frames}"
        for path, video in zip(local, group.videos, strict=True):
            file = storage.join(output_uri, video_table.film_file(video.video_id))
            storage.write_bytes(file, path.read_bytes())
    seconds = (time.monotonic() - begun_at) / len(group.videos)
    return [
        {
            **_row(video, group, film, models),
            "join_colour_drift": drift,
            "seconds": round(seconds, 2),
        }
        for video, drift in zip(group.videos, drifts, strict=True)
    ]


def _row(video: VideoRequest, group: Group, film: FilmFormat, models: dict[str, str]) -> Row:
    return {
        "video_id": video.video_id,
        "prompt": text_of(video),
        "prompts": [prompt.model_dump() for prompt in video.prompts],
        "file": video_table.film_file(video.video_id),
        "seed": video.seed,
        "frames": film.frames,
        "fps": film.fps,
        "height": film.height_px,
        "width": film.width_px,
        "joins": list(film.joins),
        "trained_frames": film.trained_frames,
        "models": models,
        "settings": as_tree(group.settings),
    }
