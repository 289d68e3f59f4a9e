"""What the recipe `small-gpu` takes on one GPU: ``python -m tests.benchmarks.small_gpu``.

Both training jobs run as they are, through Ray Train and DeepSpeed, with the preset's models,
batches and precision, but a few steps a stage and length of clip, on random pixels and codes. Then
windows are generated with the model's shape. Needs an NVIDIA GPU of 80 GB.

- ``hours``: of all stages, at the median step of each length, for the preset's numbers of steps.
  Target: at most 24, as the preset says.
- ``peak_gpu_gib``: the most memory that a stage's tensors took. Target: at most 74.
- ``mfu``: model operations over the device's dense bf16 peak, of the autoregressive model's longest
  clips. No target.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra import cluster, config
from infra.job import execute
from models.autoregressive.loong import LongtakeLlama, Sampling, generate_tokens
from pipelines import loong
from pipelines.recipe import PRESETS
from ray_jobs import train_autoregressive, train_tokenizer
from tests import shard_artifacts
from tests.benchmarks.report import report
from tests.shard_artifacts import row, tokens_spec, window

WARM_UP = 3
"""Steps of a stage that are not counted: kernels are chosen and memory is taken in them."""
TARGETS = {"hours": "<= 24", "peak_gpu_gib": "<= 74"}
LENGTHS = (1, 17, 65)
CLIPS = 24


def write_frames(folder: Path, size_px: int) -> str:
    """Write frame shards of noise in all lengths; return their URI."""
    random = np.random.default_rng(0)

    def clip(number: int) -> dict[str, Any]:
        held = [window(random.integers(256, size=(n, size_px, size_px, 3), dtype=np.uint8), n)
                for n in LENGTHS]  # fmt: skip
        return row(f"{number:032x}", held, split="train" if number else "validation")

    rows = [clip(number) for number in range(CLIPS)]
    summary = {"clips": CLIPS, "fps": 6.5}
    return shard_artifacts.write(folder, shard_artifacts.FRAMES, [rows], 4, summary)


def write_tokens(folder: Path, codes: int, side: int, text: int) -> str:
    """Write token shards of random codes in all lengths; return their URI."""
    random = np.random.default_rng(0)

    def clip(number: int) -> dict[str, Any]:
        held = [window(random.integers(codes, size=(1 + n // 4, side, side), dtype=np.uint16), n)
                for n in LENGTHS]  # fmt: skip
        prompt = random.integers(32_000, size=text, dtype=np.int32).tobytes()
        split = "train" if number else "validation"
        return row(f"{number:032x}", held, split=split, text=prompt)

    rows = [clip(number) for number in range(CLIPS)]
    about = {"fps": 6.5, "codec_fingerprint": "benchmark", "text": {"kind": "pieces"}}
    summary = {"codebook_size": codes, **about}
    return shard_artifacts.write(folder, tokens_spec(codes, dtype="uint16"), [rows], 4, summary)


def shortened(job: Any, data: str, output: str, steps: int, compiles: bool) -> Any:
    """Return a job's config with its data, and a few steps for each length of each stage."""
    stages = tuple(
        stage.model_copy(update={
            "name": _name(stage, mix), "data": (mix,), "steps": WARM_UP + steps, "warmup_steps": 0,
        })
        for stage in job.stages
        for mix in stage.data
    )  # fmt: skip
    run = job.run.model_copy(
        update={"log_every_steps": 1, "validation_windows": 1, "compile_blocks": compiles}
    )
    changes = {"input": (data,), "output": output, "stages": stages, "run": run}
    return job.model_copy(update=changes)


def _name(stage: Any, mix: Any) -> str:
    return f"{stage.name}_{mix.frames}"


def measured(output: str, stage: Any) -> dict[str, float]:
    """Return what a step of a stage took, from a finished run's log.

    Returns:
        seconds of a step, the mean of its lengths by weight; hours of all its steps; peak_gpu_gib;
        mfu of its last length.
    """
    lines = map(json.loads, Path(output, "metrics.jsonl").read_text().splitlines())
    records = [line for line in lines if line["split"] == "train"]
    seconds, weights, gib, mfu = [], [], [], 0.0
    for mix in stage.data:
        own = [record for record in records if record["stage"] == _name(stage, mix)]
        taken = np.diff([record["seconds"] for record in own])[WARM_UP - 1 :]
        seconds.append(statistics.median(taken))
        weights.append(mix.weight)
        gib += [record["peak_gpu_gib"] for record in own]
        mfu = statistics.median(record["mfu"] for record in own[WARM_UP:])
        print(f"  {mix.frames} frames: {seconds[-1]:.3f} s a step, mfu {mfu:.3f}")
    step_s = float(np.average(seconds, weights=weights))
    hours = step_s * stage.steps / 3600
    return {"seconds": step_s, "hours": hours, "peak_gpu_gib": max(gib), "mfu": mfu}


def generation(model: LongtakeLlama, batch: int, latents: int) -> float:
    """Return the seconds of a step while windows of `latents` latent frames are generated."""
    text = [[1] * model.config.max_text_tokens] * batch
    draws = [torch.Generator().manual_seed(row) for row in range(batch)]
    took = []
    for frames in (1, latents):  # the first warms up
        begun = time.perf_counter()
        generate_tokens(
            model, text, latent_frames=frames, height=16, width=16, sampling=Sampling(),
            generator=draws,
        ).cpu()  # fmt: skip
        took.append((time.perf_counter() - begun) / (frames * 256))
        draws = [torch.Generator().manual_seed(row) for row in range(batch)]
    return took[-1]


def main() -> None:
    """Print a table of stages, and report the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.small_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=10, help="measured, of each length")
    parser.add_argument("--compile", action="store_true", help="with run.compile_blocks")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here; this benchmark needs one of 80 GB")
    preset = [PRESETS / "loong" / "small-gpu.yaml"]
    loaded = config.load(loong.LoongConfig, preset, ["input=/none", "output=/none"])
    jobs: dict[str, Any] = {step.name: step.config for step in loong.steps(loaded)}
    tokenizer, autoregressive = jobs["tokenizer"], jobs["autoregressive"]
    found: list[dict[str, float]] = []
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="longtake-") as name, cluster.session():
        folder = Path(name)
        shape = autoregressive.model
        data = {
            "tokenizer": write_frames(folder, tokenizer.model.height_px),
            "autoregressive": write_tokens(
                folder, shape.vocabulary.video, 16, shape.max_text_tokens
            ),
        }
        trained: list[tuple[str, Any, Any]] = [
            ("tokenizer", train_tokenizer.JOB, tokenizer),
            ("autoregressive", train_autoregressive.JOB, autoregressive),
        ]
        for kind, job, made in trained:
            output = str(folder / f"{kind}-trained")
            execute(job, shortened(made, data[kind], output, args.steps, args.compile))
            for stage in made.stages:
                figures = measured(output, stage)
                print(
                    f"{kind}, {stage.name}: {figures['seconds']:.3f} s a step of "
                    f"{stage.batch_size}, {figures['hours']:.1f} h for {stage.steps:,} steps, "
                    f"{figures['peak_gpu_gib']:.1f} GiB",
                    flush=True,
                )
                found.append(figures)
    torch.manual_seed(0)
    model = LongtakeLlama(autoregressive.model).to("cuda", torch.bfloat16).eval()
    for batch in (1, 8):
        step_s = generation(model, batch, 17)
        print(
            f"generation, {batch} at once: {1000 * step_s:.2f} ms a step, "
            f"{17 * 256 * step_s:.0f} s for 65 frames, {batch / step_s:.0f} tokens/s"
        )
    ratios = {
        "hours": sum(figures["hours"] for figures in found),
        "peak_gpu_gib": max(figures["peak_gpu_gib"] for figures in found),
        "mfu": found[-1]["mfu"],
    }
    report("small_gpu", ratios, TARGETS)


if __name__ == "__main__":
    main()
