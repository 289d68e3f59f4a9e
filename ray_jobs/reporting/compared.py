"""The section that sets the measures of several collections of videos side by side."""

from collections.abc import Sequence
from typing import Any

from ray_jobs.reporting.inputs import Artifact

TITLES = {
    "motion": ("motion", "mean absolute difference of consecutive frames, 0–255"),
    "colour_drift": ("colour drift", "of the last window's mean colour from the first's, 0–442"),
    "join_colour_drift": ("colour drift at joins", "of mean colours before and after, 0–442"),
    "sharpness": ("sharpness", "variance of the Laplacian of luma"),
    "sharpness_ratio": ("sharpness, last to first", "ratio of Laplacian variances"),
    "frame_correlation": ("correlation of consecutive frames", "of luma, 1 for a still"),
    "brightness_change": ("brightness, last less first", "of mean luma, −255–255"),
}


def section(measures: Sequence[Artifact]) -> dict[str, Any]:
    """Return a column for each artifact of kind `measures`, and a row for each figure.

    A cell is the mean and on how many videos it stands; None where it was not measured.
    """
    metrics = [artifact.metrics() for artifact in measures]
    columns = [
        {
            "name": ", ".join(_short(source["uri"]) for source in each["sources"]),
            "uris": [source["uri"] for source in each["sources"]],
            "videos": each["videos"],
            "unreadable": each["unreadable_videos"],
        }
        for each in metrics
    ]
    rows = [
        {"title": title, "unit": unit, "cells": [each["figures"].get(name) for each in metrics]}
        for name, (title, unit) in TITLES.items()
        if any(name in each["figures"] for each in metrics)
    ]
    alike = len({repr(each["conventions"]) for each in metrics}) == 1
    return {"columns": columns, "rows": rows, "alike": alike}


def _short(uri: str) -> str:
    """Return the last two parts of a URI: a run and its step, or a folder and its own."""
    return "/".join(uri.rstrip("/").split("/")[-2:])
