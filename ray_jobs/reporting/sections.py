"""Sections of the report as plain values for the template.

Nothing here is marked as safe HTML: file names, captions and details come from untrusted videos,
and the template escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.filters import SCORED
from infra import storage
from infra.errors import UserError
from ray_jobs import clip_tables
from ray_jobs.reporting import charts, contact_sheet
from ray_jobs.reporting.charts import Line
from ray_jobs.reporting.contact_sheet import KEPT, ClipTable
from ray_jobs.reporting.inputs import Artifact

Record = Mapping[str, Any]
MAX_PICTURE_BYTES = 8 << 20
"""Score -> title, axis, the keys of its limits."""
FRAME_RANGES = {
    "loss_frames_1": "frame 1",
    "loss_frames_2_17": "frames 2–17",
    "loss_frames_18_49": "frames 18–49",
    "loss_frames_50_65": "frames 50–65",
}


def data(clips: Artifact, *, per_group: int) -> dict[str, Any]:
    """Accounting, contact sheets, quarantined inputs and score histograms of a clip table.

    Raises:
        UserError: The table holds other counts than its summary.
    """
    table = contact_sheet.read(clips.uri, per_group=per_group)
    summary = clips.summary
    _check_table(clips, table)
    accounting = [("kept", "", summary["kept"])]
    for status in ("filtered", "quarantined"):
        reasons = sorted(summary[status].items(), key=lambda item: (-item[1], item[0]))
        accounting += [(status, reason, count) for reason, count in reasons]
    groups = sorted(table.clips.items(), key=lambda item: (item[0] != KEPT, -item[1], item[0]))
    quarantined = [
        {**row, "name": storage.name(row["uri"]), "detail": row["detail"] or ""}
        for row in table.quarantined
    ]
    return {
        "inputs": summary["inputs"],
        "kept": summary["kept"],
        "filtered": sum(summary["filtered"].values()),
        "quarantined": sum(summary["quarantined"].values()),
        "accounting": accounting,
        "clips": groups,
        "clips_total": sum(table.clips.values()),
        "source_seconds": summary.get("source_seconds"),
        "cpu_seconds": summary.get("cpu_seconds"),
        "peak_rss_bytes": summary.get("peak_rss_bytes"),
        "sheets": [
            {"group": group, "count": count, "pictures": _pictures(table.pictures[group])}
            for group, count in groups
        ],
        "quarantined_rows": quarantined,
        "histograms": _histograms(clips, table),
        "score_only": bool(clip_tables.filters_of(clips.uri).get("score_only")),
    }


def tokenizer(artifact: Artifact) -> dict[str, Any]:
    """Facts, training curves and the reconstruction picture of a tokenizer."""
    records = artifact.records()
    validation = artifact.summary.get("validation") or {}
    marks = _stages(records)
    level = ("constant colour", validation.get("psnr_constant_colour_db"))
    size = ("codebook size", validation.get("codebook_size"))
    drawn = [
        _chart(records, "loss", marks, "Loss", "weighted loss"),
        _chart(records, "psnr_db", marks, "Reconstruction on held-out clips", "PSNR (dB)", level),
        _chart(records, "codebook_used", marks, "Codebook entries in use", "entries", size, True),
        _chart(
            records,
            "frames_per_second",
            marks,
            "Training speed",
            "frames per second",
            from_zero=True,
        ),
    ]
    return {
        "facts": _facts(artifact),
        "validation": validation,
        "charts": [chart for chart in drawn if chart],
        "picture": _picture(artifact, "validation.png"),
    }


def autoregressive(artifact: Artifact) -> dict[str, Any]:
    """Facts and loss curves, overall and per frame range, of an autoregressive model."""
    records = artifact.records()
    validation = artifact.summary.get("validation") or {}
    marks = _stages(records)
    level = ("unigram entropy", validation.get("unigram_entropy_nats"))
    loss = "loss_nats" if any("loss_nats" in record for record in records) else "loss"
    drawn = [_chart(records, loss, marks, "Loss, all frames", "nats per token", level)]
    for split, title in (("train", "Training"), ("validation", "Held-out")):
        lines = [_line(records, key, split, label) for key, label in FRAME_RANGES.items()]
        name = f"{title} loss by place in the clip"
        drawn.append(_draw([x for x in lines if x], marks, name, "nats per token", level))
    speed = _chart(
        records, "tokens_per_second", marks, "Training speed", "tokens per second", from_zero=True
    )
    drawn.append(speed)
    ranges = [(label, validation[key]) for key, label in FRAME_RANGES.items() if key in validation]
    return {
        "facts": _facts(artifact),
        "validation": validation,
        "ranges": ranges,
        "charts": [chart for chart in drawn if chart],
    }


def timings(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Seconds of each stage as a table and a chart."""
    names = _names(artifacts)
    seconds = {name: artifact.info.seconds for name, artifact in names.items()}
    return {
        "rows": [
            (name, seconds[name], artifact.info.size_bytes) for name, artifact in names.items()
        ],
        "total": sum(seconds.values()),
        "chart": charts.bars(seconds, title="Wall-clock time by stage", x_label="seconds"),
    }


def provenance(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """Kind, place, fingerprint and resolved config of every artifact."""
    return [
        {
            "kind": artifact.info.kind,
            "uri": artifact.uri,
            "fingerprint": artifact.info.fingerprint,
            "schema_version": artifact.info.schema_version,
            "counts": artifact.info.counts,
            "config": artifact.config_text,
        }
        for artifact in artifacts
    ]


def _names(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """Name each artifact by its kind, and by its folder too where there are several of a kind."""
    kinds = [artifact.info.kind for artifact in artifacts]
    endings = _endings([artifact.uri for artifact in artifacts])
    return {
        kind if kinds.count(kind) == 1 else f"{kind} ({ending})": artifact
        for kind, ending, artifact in zip(kinds, endings, artifacts, strict=True)
    }


def _endings(uris: Sequence[str]) -> list[str]:
    """Return as many last parts of each URI as tell them apart."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    for count in range(1, max(map(len, parts), default=1) + 1):
        endings = ["/".join(each[-count:]) for each in parts]
        if len(set(endings)) == len(endings):
            return endings
    return list(uris)


def _check_table(clips: Artifact, table: ClipTable) -> None:
    summary = clips.summary
    said = {
        "inputs": summary["inputs"],
        "kept": summary["kept"],
        "filtered": sum(summary["filtered"].values()),
        "quarantined": sum(summary["quarantined"].values()),
    }
    held = {
        "inputs": sum(table.rows.values()),
        "kept": table.rows[KEPT],
        "filtered": table.rows["filtered"],
        "quarantined": table.rows["quarantined"],
    }
    for name, count in said.items():
        if held[name] != count:
            raise UserError(
                f"{clips.uri}: accounting does not match the clip table: summary.json says "
                f"{name} = {count}, the table holds {held[name]}"
            )


def _pictures(clips: Sequence[Record]) -> list[dict[str, Any]]:
    return [
        {
            "source": charts.data_uri(clip["thumbnail"], "image/jpeg")
            if clip["thumbnail"]
            else None,
            "name": storage.name(clip["uri"]),
            "start_s": clip["start_s"],
            "end_s": clip["end_s"],
            "scores": clip["scores"] or {},
        }
        for clip in clips
    ]


def _histograms(clips: Artifact, table: ClipTable) -> list[dict[str, str]]:
    made = []
    filters = clip_tables.filters_of(clips.uri)
    for each in SCORED:
        name, title = each.score.name, each.score.title
        groups = {s: table.scores[name][s] for s in (KEPT, "filtered") if s in table.scores[name]}
        values = [v for group in groups.values() for v in group.tolist() if v == v]
        if not values:
            continue
        low, high = min(values), max(values)
        room = 0.5 * (high - low)
        limits = [filters.get(each.name, {}).get(key) for key in each.drawn]
        near = [
            float(limit)
            for limit in limits
            if isinstance(limit, int | float) and low - room <= limit <= high + room
        ]
        source = charts.histogram(groups, title=title, x_label=each.score.axis, thresholds=near)
        made.append({"source": source, "title": title})
    return made


def _stages(records: Sequence[Record]) -> list[tuple[float, str]]:
    """Where each stage begins (the last logged step before it), for the vertical lines."""
    begins: dict[str, float] = {}
    before = 0.0
    for record in records:
        begins.setdefault(str(record.get("stage", "")), before)
        before = float(record["step"])
    return [(step, stage.replace("_", " ")) for stage, step in begins.items() if stage]


def _line(records: Sequence[Record], key: str, split: str, label: str) -> Line | None:
    points = [
        (record["step"], record[key])
        for record in records
        if record.get("split") == split and record.get(key) is not None
    ]
    if not points:
        return None
    return Line(label, [p[0] for p in points], [p[1] for p in points])


def _chart(
    records: Sequence[Record],
    key: str,
    marks: Sequence[tuple[float, str]],
    title: str,
    y_label: str,
    level: tuple[str, float | None] | None = None,
    from_zero: bool = False,
) -> dict[str, str] | None:
    lines = [
        _line(records, key, "train", "training"),
        _line(records, key, "validation", "held-out"),
    ]
    return _draw([line for line in lines if line], marks, title, y_label, level, from_zero)


def _draw(
    lines: Sequence[Line],
    marks: Sequence[tuple[float, str]],
    title: str,
    y_label: str,
    level: tuple[str, float | None] | None,
    from_zero: bool = False,
) -> dict[str, str] | None:
    if not lines:
        return None
    known = (level[0], level[1]) if level is not None and level[1] is not None else None
    source = charts.line_chart(
        lines,
        title=title,
        x_label="step",
        y_label=y_label,
        level=known,
        marks=marks,
        from_zero=from_zero,
    )
    return {"source": source, "title": title}


def _facts(artifact: Artifact) -> list[tuple[str, Any]]:
    names = {"parameters": "parameters", "steps": "training steps"}
    return [(label, artifact.summary[k]) for k, label in names.items() if k in artifact.summary]


def _picture(artifact: Artifact, name: str) -> str | None:
    uri = storage.join(artifact.uri, "samples", name)
    if not storage.exists(uri) or storage.size_bytes(uri) > MAX_PICTURE_BYTES:
        return None
    return charts.data_uri(storage.read_bytes(uri), "image/png")
