"""Measurements of one film, from its frames alone, with the conventions they were made by."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data_prep import thumbnails
from data_prep.decode import Decoder
from data_prep.decode_process import DecodeError, DecodeLimits
from infra import storage
from infra.config import Section
from infra.errors import UserError, one_line
from models.evaluation import motion
from ray_jobs.evaluation.measures_table import FIGURES, Record

SCALES = {
    "motion": "mean absolute difference of consecutive frames, RGB, 0-255",
    "brightness": "mean Rec. 601 luma, 0-255",
    "sharpness": "variance of the 4-neighbour Laplacian of luma, mean over frames",
    "colour_distance": "distance of the mean RGB colour to the first window's, 0-442",
    "frame_correlation": "mean correlation of the luma of consecutive frames, -1 to 1",
}


class MeasureConfig(Section):
    """How a film is measured."""

    window_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds of film behind one point of a curve."""
    long_side_px: Annotated[int, Field(ge=16)] = 256
    """Frames are measured at most this large; smaller films at their own size."""
    max_measured_frames: Annotated[int, Field(ge=1)] = 8192
    """Frames measured of one film, from its start; bounds memory."""
    strip_frames: Annotated[int, Field(ge=0, le=64)] = 10
    """Frames in a film's strip; 0 leaves it out."""
    decode: DecodeLimits = DecodeLimits()
    """What reading one film may cost."""


def measure(uri: str, film: Mapping[str, Any], config: MeasureConfig) -> Record:
    """Measure one film.

    Args:
        uri: where it is.
        film: what is known of it, with the keys of a row of the `videos` table and `source`;
            None is taken from the file.
        config: how to measure.

    Returns:
        A row of `measures_table`, whose figures are None and whose `problem` says why when the
        file cannot be read. `windows` has figures for every `window_s` seconds.

    Raises:
        storage.Unavailable: storage does not answer, which says nothing of the film.
    """
    record = describe(film)
    try:
        with storage.local_copy(uri) as path, Decoder(path, config.decode) as decoder:
            frames_THWC, truncated = _read(decoder, config)
            probed = decoder.probe()
    except (DecodeError, UserError) as error:  # a verdict on the film, not an outage
        return {**record, "problem": one_line(error)}
    known = {"fps": probed.fps, "height_px": probed.height_px, "width_px": probed.width_px}
    known["frames"] = probed.frames or len(frames_THWC)
    record.update({key: value for key, value in known.items() if record[key] is None})
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
    windows = _windows(frames_THWC, record["fps"], config.window_s)
    if len(frames_THWC) > 1:
        record["motion"] = motion.motion_energy(frames_THWC)
        for name in ("sharpness", "frame_correlation"):
            record[name] = float(np.mean([window[name] for window in windows]))
        record["brightness_change"] = windows[-1]["brightness"] - windows[0]["brightness"]
        record["colour_drift"] = windows[-1]["colour_distance"]
        record["sharpness_ratio"] = windows[-1]["sharpness"] / max(windows[0]["sharpness"], 1e-9)
    record["windows"] = windows
    places = thumbnails.evenly(len(frames_THWC), config.strip_frames)
    record["strip"] = [thumbnails.jpeg(frames_THWC[place]) for place in places]
    return record


def describe(film: Mapping[str, Any]) -> Record:
    """Return the record of a film of which nothing has been measured; see :func:`measure`."""
    drift = film.get("join_colour_drift")
    return {
        "video_id": film["video_id"],
        "source": film.get("source") or "",
        "file": film["file"],
        "prompt": film.get("prompt"),
        "seed": film.get("seed"),
        "frames": film.get("frames"),
        "fps": film.get("fps"),
        "height_px": film.get("height"),
        "width_px": film.get("width"),
        "joins": list(film.get("joins") or ()),
        "trained_frames": film.get("trained_frames"),
        "settings": film.get("settings") or {},
        **dict.fromkeys(FIGURES),
        "join_colour_drift": float(np.mean(drift)) if drift else None,
        "windows": [],
        "conventions": {},
        "problem": None,
        "strip": [],
    }


def _windows(frames_THWC: np.ndarray, fps: float, window_s: float) -> list[dict[str, float]]:
    curves = asdict(motion.per_window(frames_THWC, fps, window_s=window_s))
    rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    ends = [*curves["start_s"][1:], len(frames_THWC) / fps]
    return [{**row, "end_s": end} for row, end in zip(rows, ends, strict=True)]


def _read(decoder: Decoder, config: MeasureConfig) -> tuple[np.ndarray, bool]:
    chunks, count = [], 0
    for chunk in decoder.frames(long_side_px=config.long_side_px):
        chunks.append(chunk.frames_THWC[: config.max_measured_frames - count])
        count += len(chunks[-1])
        if count >= config.max_measured_frames:
            break
    return np.concatenate(chunks), count < (decoder.probe().frames or count)
