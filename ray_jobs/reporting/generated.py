"""Sections on videos, generated and held out: player, joins, film strip and curves over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from infra import storage
from ray_jobs.evaluation.reference import is_film
from ray_jobs.reporting import charts
from ray_jobs.reporting.charts import Band, Line

MIB = 1 << 20
PIXELATED_BELOW_PX = 160
SHOWN_LONG_SIDE_PX = 560
CURVES = {
    "motion": ("Motion", "frame difference (still 0, noise 85)"),
    "brightness": ("Brightness", "mean luma, 0–255"),
    "sharpness": ("Detail", "Laplacian variance (noise 49,000)"),
    "colour_distance": ("Colour drift", "distance from start, 0–442"),
    "frame_correlation": ("Correlation of consecutive frames", "of luma (noise 0, still 1)"),
}
Curves = Mapping[str, Band]


def reference_curves(film: Sequence[Mapping[str, Any]]) -> Curves:
    """Return what held-out film does over time, by the names of `CURVES`, as far as it lasts.

    Args:
        film: Rows of measures.parquet; none give no curves.
    """
    columns: list[list[Mapping[str, float]]] = []
    for record in film:
        for place, window in enumerate(record["windows"]):
            columns += [[]] * (place == len(columns))
            columns[place] = [*columns[place], window]
    x = [float(np.mean([(w["start_s"] + w["end_s"]) / 2 for w in column])) for column in columns]
    return {
        name: Band(
            f"held-out film ({len(film)} clips)",
            x,
            [min(window[name] for window in column) for column in columns],
            [float(np.mean([window[name] for window in column])) for column in columns],
            [max(window[name] for window in column) for column in columns],
        )
        for name in CURVES
        if columns
    }


def panels(video: Mapping[str, Any], film: Curves) -> list[dict[str, Any]]:
    """The charts of one video's windows, as arguments of `charts.line_chart`.

    Args:
        video: A row of measures.parquet; see `ray_jobs.evaluation.measure`.
        film: From `reference_curves`.
    """
    windows = video["windows"]
    x = [(window["start_s"] + window["end_s"]) / 2 for window in windows]
    joins = [(frame / video["fps"], "") for frame in video["joins"]]
    made = []
    for name, (title, unit) in CURVES.items():
        values = [window.get(name) for window in windows]
        if all(value is None for value in values):
            continue
        y = [float("nan") if value is None else value for value in values]
        made.append(
            {
                "lines": [Line("this video", x, y)],
                "title": title,
                "x_label": "time (s)",
                "y_label": unit,
                "marks": joins,
                "from_zero": name != "brightness",
                "band": film.get(name),
                "x_range": (0.0, video["frames"] / video["fps"]),
            }
        )
    return made


def section(
    videos: Sequence[Mapping[str, Any]],
    film: Curves,
    *,
    max_video_mib: float,
    max_page_mib: float,
) -> dict[str, Any]:
    """What the template shows of the generated videos.

    Args:
        videos: Rows of measures.parquet, each with `uri`, where its file is.
        film: From `reference_curves`.
        max_video_mib: Largest file put into the page; a larger one becomes a link.
        max_page_mib: Most bytes of video put into the page altogether.
    """
    left = max_page_mib * MIB
    shown = []
    for video in videos:
        uri = video["uri"]
        size = storage.size_bytes(uri) if storage.exists(uri) else None
        fits = size is not None and size <= max_video_mib * MIB and size <= left
        left -= size if size is not None and fits else 0
        strip = [charts.data_uri(jpeg, "image/jpeg") for jpeg in video["strip"]]
        shown.append(
            {
                **video,
                **_size(video),
                "settings": flat(video["settings"]),
                "size_mib": None if size is None else size / MIB,
                "source": charts.data_uri(storage.read_bytes(uri), "video/mp4") if fits else None,
                "strip": strip,
                "seconds_long": video["frames"] / video["fps"],
                "segments": [] if is_film(video) else _segments(video),
                "charts": [
                    {"source": charts.line_chart(**panel), "title": panel["title"]}
                    for panel in panels(video, film)
                ],
            }
        )
    return {"videos": shown, "max_video_mib": max_video_mib}


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return the values of nested settings under their dotted keys; null ones are left out."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name] = value
    return found


def _segments(video: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stretches between joins, as shares of the video's length."""
    frames, fps = video["frames"], video["fps"]
    edges = [0, *(join for join in sorted(video["joins"]) if 0 < join < frames), frames]
    return [
        {
            "left": 100 * start / frames,
            "width": 100 * (end - start) / frames,
            "start_s": start / fps,
            "label": "first pass" if index == 0 else f"extension {index}",
            "labelled": (end - start) / frames >= 0.12,
        }
        for index, (start, end) in enumerate(pairwise(edges))
    ]


def _size(video: Mapping[str, Any]) -> dict[str, Any]:
    """Shown size: small pictures grow by a whole factor, with their pixels left visible."""
    width, height = video["width_px"], video["height_px"]
    scale = SHOWN_LONG_SIDE_PX / max(width, height)
    if scale > 1:
        scale = max(1, int(scale))
    return {
        "shown_width": round(width * scale),
        "pixelated": min(width, height) <= PIXELATED_BELOW_PX,
    }
