"""Builds the report: sections into one self-contained HTML page.

The page holds no address outside itself: styles are in it, pictures and videos are data URIs, and
the only script moves the playhead under a video.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from ray_jobs.reporting import compared, generated, sections
from ray_jobs.reporting.headline import Figure
from ray_jobs.reporting.inputs import Inputs

TEMPLATE = "template.html.j2"
PACKAGES = ("ray", "torch", "deepspeed", "pyarrow", "decord", "av", "scenedetect-headless")
DASH = "–"
MOST_FILMS = 2
"""Held-out clips shown beside the generated videos."""


def build(
    inputs: Inputs,
    videos: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure],
    film: Sequence[Mapping[str, Any]] = (),
    *,
    title: str,
    credits: Sequence[str],
    thumbnails_per_group: int,
    max_video_mib: float,
    max_page_mib: float,
) -> str:
    """The report as HTML.

    Args:
        inputs: The artifacts; a section appears only when its artifact is among them.
        videos: Rows of measures.parquet of the generated videos, each with `uri`.
        figures: The headline figures.
        film: Rows of measures.parquet of held-out film, each with `uri`.
        title: Heading of the page.
        credits: Lines of credit for the films used.
        thumbnails_per_group: Most clips shown of the kept and of each reason of rejection.
        max_video_mib: Largest video put into the page.
        max_page_mib: Most bytes of video put into the page altogether.
    """
    artifacts = inputs.by_kind
    parts: dict[str, Any] = {}
    if videos:
        beside = generated.reference_curves(film)
        parts["generated"] = generated.section(
            videos, beside, max_video_mib=max_video_mib, max_page_mib=max_page_mib
        )
        parts["film"] = generated.section(
            film[:MOST_FILMS], beside, max_video_mib=max_video_mib, max_page_mib=max_page_mib
        )
    if len(inputs.measures) > 1:
        parts["compared"] = compared.section(inputs.measures)
    if "clips" in artifacts:
        parts["data"] = sections.data(artifacts["clips"], per_group=thumbnails_per_group)
    if "tokenizer" in artifacts:
        parts["tokenizer"] = sections.tokenizer(artifacts["tokenizer"])
    if "autoregressive" in artifacts:
        parts["autoregressive"] = sections.autoregressive(artifacts["autoregressive"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "clock": clock, "mib": mib, "words": words}
    return environment.get_template(TEMPLATE).render(
        title=title,
        outcome=outcome(inputs, videos, figures),
        figures=[asdict(figure) for figure in figures],
        parts=parts,
        timings=sections.timings(inputs.all),
        provenance=sections.provenance(inputs.all),
        machine=machine(),
        credits=credits,
        not_measured=_not_measured(inputs),
    )


def outcome(
    inputs: Inputs,
    videos: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure],
) -> str:
    """What came of the run, in one sentence made of what is known."""
    said = []
    artifacts = inputs.by_kind
    if "clips" in artifacts:
        summary = artifacts["clips"].summary
        said.append(
            f"{_count(summary['inputs'], 'input video')} gave "
            f"{_count(summary['clips'], 'clip')} to train on"
        )
    if videos:
        longest = max(videos, key=lambda video: video["frames"] / video["fps"])
        seconds = longest["frames"] / longest["fps"]
        length = (
            f"the longest of {len(videos)} generated videos"
            if len(videos) > 1
            else ("the generated video")
        )
        trained = longest.get("trained_frames")
        times = f", {longest['frames'] / trained:.1f} times the trained length" if trained else ""
        said.append(f"{length} runs {seconds:.1f} s{times}")
    known = [figure for figure in figures if figure.verdict != "not measured"]
    if known:
        missed = [_lower(figure.title) for figure in known if figure.verdict == "missed"]
        if not missed:
            said.append(f"all {_count(len(known), 'figure')} measured reach their target")
        else:
            met = f"{len(known) - len(missed)} of {_count(len(known), 'figure')} measured"
            said.append(f"{met} reach their target, and these do not: {', '.join(missed)}")
    if not said:
        return f"Finished artifacts: {', '.join(each.info.kind for each in inputs.all)}."
    sentence = "; ".join(said)
    return sentence[0].upper() + sentence[1:] + "."


def machine() -> dict[str, str]:
    """The machine that made the report, and the versions of what matters."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processors": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        **versions,
    }


def number(value: float | None, digits: int = 2) -> str:
    """A number with thousands separated; whole numbers without decimals; a dash for None."""
    if value is None or value != value:
        return DASH
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def clock(seconds: float | None) -> str:
    """Seconds as m:ss.s, or h:mm:ss from one hour on; a dash for None."""
    if seconds is None:
        return DASH
    tenths = round(seconds * 10)
    if tenths >= 36000:
        whole = round(seconds)
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"


def mib(size_bytes: float | None) -> str:
    """Bytes as MiB, or as GiB from one GiB on; a dash for None."""
    if size_bytes is None:
        return DASH
    if size_bytes >= 2**30:
        return f"{size_bytes / 2**30:.1f} GiB"
    return f"{size_bytes / 2**20:.1f} MiB"


def words(name: str) -> str:
    """A key as words: underscores become spaces."""
    return name.replace("_", " ")


def _not_measured(inputs: Inputs) -> list[str]:
    """Metrics of the field that no measures of generated videos have."""
    lacking = [set(measures.metrics()["not_measured"]) for measures in inputs.of_generated]
    return sorted(set.intersection(*lacking)) if lacking else []


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
