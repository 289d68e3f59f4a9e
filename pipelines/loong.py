"""Loong from videos to a long video and a report, as one list of jobs.

::

    videos ─prepare─▶ clips ──frames──▶ frames ─train_tokenizer─▶ tokenizer
                                          └──────────tokenize──────────┴─▶ tokens
    tokens ─train_autoregressive─▶ autoregressive ─generate─▶ videos ─evaluate─▶ measures
    frames ─held_out─▶ held-out film, as videos ──────────────┘└(upscale)┘           │
    all of them ─report─▶ page ◀─────────────────────────────────────────────────────┘
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from typing import Any

from pydantic import Field

from data_prep import manifest, samples
from infra import artifact, storage
from infra.config import OutputUri, Section, Uri
from infra.errors import UserError
from infra.log import logger
from models.upscale import check
from pipelines import lengths
from pipelines.recipe import Step, main, step
from ray_jobs import (
    evaluate,
    frames,
    generate,
    held_out,
    prepare,
    report,
    tokenize,
    train_autoregressive,
    train_tokenizer,
    upscale,
)

Settings = dict[str, Any]
MOST_BATCHES_WITHOUT_CAPTION = 8
"""Some thousands of videos each, before a corpus counts as one without captions."""
STEPS = (
    *("prepare", "frames", "tokenizer", "tokens"),
    *("autoregressive", "generate", "held_out", "upscale", "held_out_upscale"),
    *("measures", "held_out_measures", "report"),
)


class LoongConfig(Section):
    """Settings of the recipe; each step's section holds its job's keys, less input and output."""

    input: Uri | None = None
    """Videos: a directory, a prefix or a manifest. None: the demo's film, where a preset has it."""
    output: OutputUri
    """Where each step's artifact goes, in a folder of the step's name."""
    seed: int = 0
    demo_film: bool = False
    """Without `input`, fetch the demo's film (Big Buck Bunny) instead of refusing."""
    prepare: Settings = Field(default_factory=dict)
    """Of `ray_jobs.prepare`."""
    frames: Settings = Field(default_factory=dict)
    """Clips at model resolution and rate."""
    tokenizer: Settings = Field(default_factory=dict)
    """Of `ray_jobs.train_tokenizer`."""
    tokens: Settings = Field(default_factory=dict)
    """Of `ray_jobs.tokenize`."""
    autoregressive: Settings = Field(default_factory=dict)
    """Of `ray_jobs.train_autoregressive`."""
    generate: Settings = Field(default_factory=dict)
    """Without `prompts`, that of the demo's film, or the first caption of the videos; none where
    they have none."""
    held_out: Settings = Field(default_factory=dict)
    """Clips that no training sees, which the videos are held against."""
    upscale: Settings | None = None
    """Of the videos and of the held-out film; left out while this is null, `upscale={}` takes its
    defaults."""
    measures: Settings = Field(default_factory=dict)
    """Of the videos of `upscale` where there is that step, else of `generate`; of held-out film
    alike."""
    report: Settings = Field(default_factory=dict)
    """Of `ray_jobs.report`."""
    credits: tuple[str, ...] = ()
    """Lines of credit for the films, shown in the report."""


def steps(config: LoongConfig) -> list[Step]:
    """Return the recipe's steps, every config checked."""
    out = {name: storage.join(config.output, name) for name in STEPS}
    common: dict[str, Any] = {"seed": config.seed}
    credit = [*config.credits, *([samples.BIG_BUCK_BUNNY_CREDIT] if _uses_film(config) else [])]
    made = [
        step("prepare", prepare.JOB, config.prepare,
             input=[_videos(config)], output=out["prepare"], **common),
        step("frames", frames.JOB, config.frames,
             input=[out["prepare"]], output=out["frames"], **common),
        step("tokenizer", train_tokenizer.JOB, config.tokenizer,
             input=[out["frames"]], output=out["tokenizer"], **common),
        step("tokens", tokenize.JOB, config.tokens,
             input=[out["frames"]], codec=out["tokenizer"], output=out["tokens"], **common),
        step("autoregressive", train_autoregressive.JOB, config.autoregressive,
             input=[out["tokens"]], output=out["autoregressive"], **common),
        step("generate", generate.JOB, {"prompts": [_prompt(config)], **config.generate},
             input=[out["tokenizer"], out["autoregressive"]], output=out["generate"], **common),
        step("held_out", held_out.JOB, config.held_out,
             input=[out["frames"]], output=out["held_out"], **common),
    ]  # fmt: skip
    made[1] = replace(made[1], check=partial(_check_lengths, made))
    shown = [item.config.output for item in made[:-1]]
    videos, film = out["generate"], out["held_out"]
    if config.upscale is not None:
        for name, source in (("upscale", videos), ("held_out_upscale", film)):
            made.append(step(name, upscale.JOB, config.upscale,
                             input=[source], output=out[name], **common))  # fmt: skip
        shown[-1], videos, film = out["upscale"], out["upscale"], out["held_out_upscale"]
    for name, source in (("measures", videos), ("held_out_measures", film)):
        made.append(step(name, evaluate.JOB, config.measures,
                         input=[source], output=out[name], **common))  # fmt: skip
        shown.append(out[name])
    made.append(step("report", report.JOB, config.report,
                     input=shown, output=out["report"], credits=credit, **common))  # fmt: skip
    return made


def _check_lengths(steps: Sequence[Step]) -> None:
    """Refuse stages of which no clip of the prepared films has the length."""
    by_name = {item.name: item.config for item in steps}
    made, tokenizer, model = (by_name[name] for name in ("frames", "tokenizer", "autoregressive"))
    assert isinstance(made, frames.FramesConfig)
    assert isinstance(tokenizer, train_tokenizer.TrainTokenizerConfig)
    assert isinstance(model, train_autoregressive.TrainAutoregressiveConfig)
    stages = [*tokenizer.stages, *model.stages]
    lengths.check(by_name["prepare"].output, frames.settings_of(made), stages)


def refuse(config: LoongConfig) -> None:
    """Refuse what cannot be, or would only fail at a late step.

    Raises:
        UserError: there are no videos at `input`, or a step's package is missing.
    """
    if config.input is not None and not storage.exists(config.input):
        raise UserError(f"input {config.input}: not found")
    for item in steps(config):
        finished = storage.exists(storage.join(item.config.output, artifact.MARKER))
        if isinstance(item.config, upscale.UpscaleConfig) and not finished:
            check(item.config.upscaler)


def get_videos(config: LoongConfig) -> None:
    """Fetch the demo's film and write its manifest, when the config asks for it."""
    if not _uses_film(config):
        return
    listed = _videos(config)
    if not storage.exists(listed):
        film = samples.big_buck_bunny()
        logger.info(f"film: {film}")
        row = {"uri": str(film), "caption": samples.BIG_BUCK_BUNNY_CAPTION}
        storage.write_text(listed, json.dumps(row) + "\n")


def report_of(config: LoongConfig) -> str:
    """Put the self-contained report beside the steps and return its URI."""
    copy = storage.join(config.output, "report.html")
    page = storage.read_bytes(storage.join(config.output, "report", "report.html"))
    storage.write_bytes(copy, page)
    return copy


def _prompt(config: LoongConfig) -> str:
    """Return a prompt of the kind that the model learns from these videos."""
    if "prompts" in config.generate:
        return ""
    if _uses_film(config):
        return "An animated film: a big grey rabbit in a green meadow."
    return _first_caption(_videos(config))


@cache
def _first_caption(videos: str) -> str:
    """Return the first caption among the first videos; empty where there is none."""
    with suppress(UserError):  # which `prepare` says
        batches = manifest.stream((videos,), manifest.Counts())
        for batch in islice(batches, MOST_BATCHES_WITHOUT_CAPTION):
            for caption in batch["caption"].to_pylist():
                if caption:
                    return caption
    return ""


def _uses_film(config: LoongConfig) -> bool:
    return config.input is None and config.demo_film


def _videos(config: LoongConfig) -> str:
    if config.input is not None:
        return config.input
    if config.demo_film:
        return storage.join(config.output, "manifest.jsonl")
    raise UserError("input: missing; give a directory, a prefix or a manifest as input=…")


if __name__ == "__main__":
    main("loong", LoongConfig, steps, refuse, get_videos, report_of)
