"""Headline figures of the models, each with its baseline, target and verdict.

A figure whose artifact is not given, or whose summary lacks it, says "not measured" and carries
no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ray_jobs.reporting.inputs import Artifact

PSNR_MARGIN_DB = 4.0
LATE_LOSS_DB = 1.0
CODEBOOK_SHARE = 0.5
Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class Figure:
    """One headline figure."""

    name: str
    """Stable key, as in metrics.json."""
    title: str
    """What is measured, in words."""
    unit: str
    """Unit of value, baseline and margin."""
    baseline_name: str
    """What it is compared with, in words."""
    target: str
    """What is asked of it, in words."""
    value: float | None = None
    """None when not measured, as are baseline and margin."""
    baseline: float | None = None
    margin: float | None = None
    """How much better than the baseline; positive is better."""
    verdict: Verdict = "not measured"
    remark: str = "not measured"
    """The verdict in words, with the margin."""


def figures(artifacts: Mapping[str, Artifact]) -> list[Figure]:
    """The headline figures of a run's models.

    Args:
        artifacts: The artifacts by kind.
    """
    tokenizer = _validation(artifacts, "tokenizer")
    autoregressive = _validation(artifacts, "autoregressive")
    return [
        _reconstruction(tokenizer.get("psnr_db"), tokenizer.get("psnr_constant_colour_db")),
        _late_frames(tokenizer.get("psnr_late_frames_db"), tokenizer.get("psnr_early_frames_db")),
        _codebook(tokenizer.get("codebook_used"), tokenizer.get("codebook_size")),
        _loss(autoregressive.get("loss_nats"), autoregressive.get("unigram_entropy_nats")),
    ]


def _validation(artifacts: Mapping[str, Artifact], kind: str) -> dict[str, Any]:
    return artifacts[kind].summary.get("validation") or {} if kind in artifacts else {}


def _reconstruction(value: float | None, baseline: float | None) -> Figure:
    figure = Figure(
        "reconstruction_psnr",
        "Reconstruction of held-out clips (PSNR)",
        "dB",
        "best single colour",
        f"{PSNR_MARGIN_DB:g} dB above the best single colour",
    )
    if value is None or baseline is None:
        return figure
    margin = value - baseline
    remark = (
        f"{abs(margin):.1f} dB {'above' if margin >= 0 else 'below'}, target {PSNR_MARGIN_DB:g} dB"
    )
    return measured(figure, value, baseline, margin, margin >= PSNR_MARGIN_DB, remark)


def _late_frames(late: float | None, early: float | None) -> Figure:
    figure = Figure(
        "late_frames_psnr",
        "Later frames of held-out clips (PSNR)",
        "dB",
        "their first halves",
        f"at most {LATE_LOSS_DB:g} dB below the first halves",
    )
    if late is None or early is None:
        return figure
    margin = late - early
    remark = f"{abs(margin):.1f} dB {'above' if margin >= 0 else 'below'}"
    return measured(figure, late, early, margin, margin >= -LATE_LOSS_DB, remark)


def _codebook(used: int | None, size: int | None) -> Figure:
    if used is None or size is None:
        return Figure(
            "codebook_use",
            "Codebook in use on held-out clips",
            "entries",
            "half of the codebook",
            "at least half",
        )
    figure = Figure(
        "codebook_use",
        "Codebook in use on held-out clips",
        f"of {size:,}",
        "half of the codebook",
        "at least half",
    )
    half = CODEBOOK_SHARE * size
    remark = f"{used / size:.0%} in use, target {CODEBOOK_SHARE:.0%}"
    return measured(figure, used, half, used - half, used >= half, remark)


def _loss(value: float | None, entropy: float | None) -> Figure:
    figure = Figure(
        "validation_loss",
        "Next-token loss on held-out clips",
        "nats",
        "token unigram entropy",
        "below the unigram entropy",
    )
    if value is None or entropy is None:
        return figure
    margin = entropy - value
    remark = f"{abs(margin):.2f} nats {'below it' if margin > 0 else 'above it'}"
    return measured(figure, value, entropy, margin, margin > 0, remark)


def measured(
    figure: Figure, value: float, baseline: float, margin: float, met: bool, remark: str
) -> Figure:
    """Return a figure with what was measured of it."""
    return replace(
        figure,
        value=float(value),
        baseline=float(baseline),
        margin=float(margin),
        verdict="met" if met else "missed",
        remark=remark,
    )
