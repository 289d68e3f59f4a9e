"""What jobs know of a clip table beside its rows: the accounts, and the thresholds behind it."""

from collections import Counter
from typing import Any

import yaml

from infra import storage


def tally(row: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of a single row of the clip table."""
    clips = Counter(clip["reason"] for clip in row["clips"])
    kept = clips.pop(None, 0)
    return {
        "inputs": 1,
        "kept": int(row["status"] == "kept"),
        "filtered": {row["reason"]: 1} if row["status"] == "filtered" else {},
        "quarantined": {row["reason"]: 1} if row["status"] == "quarantined" else {},
        "clips": kept,
        "clips_filtered": dict(clips),
        # A container that cannot be read may claim any length.
        "source_seconds": (row["duration_s"] or 0.0) * (row["status"] != "quarantined"),
        "cpu_seconds": row["cpu_seconds"],
        "peak_rss_bytes": row["peak_rss_bytes"],
    }


def add_up(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of all rows from the summaries of some."""
    total: dict[str, Any] = {}
    for key in ("inputs", "kept", "filtered", "quarantined", "clips", "clips_filtered"):
        values = [part[key] for part in parts]
        if key.endswith(("filtered", "quarantined")):
            counts = sum((Counter(value) for value in values), Counter[str]())
            total[key] = dict(sorted(counts.items()))
        else:
            total[key] = sum(values)
    for key in ("source_seconds", "cpu_seconds"):
        total[key] = round(sum(part[key] for part in parts), 3)
    total["peak_rss_bytes"] = max(part["peak_rss_bytes"] for part in parts)
    return total


def check_accounts(summary: dict[str, Any], inputs: int) -> None:
    """Assert that every input is in the table once, as kept, filtered or quarantined."""
    out = summary["kept"] + sum(summary["filtered"].values()) + sum(summary["quarantined"].values())
    assert summary["inputs"] == out == inputs, (
        f"{inputs} inputs, {summary['inputs']} rows, {out} accounted for"
    )


def filters_of(uri: str) -> dict[str, Any]:
    """Return the thresholds by which the clips of a finished table were judged.

    `select` resolves them from its input's and states them in its summary; `prepare` has them in
    its config.
    """
    summary = storage.read_json(storage.join(uri, "summary.json"))
    if "filters" in summary:
        return summary["filters"]
    return yaml.safe_load(storage.read_text(storage.join(uri, "config.yaml")))["analysis"][
        "filters"
    ]
