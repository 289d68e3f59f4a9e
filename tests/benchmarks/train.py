"""What a training step, the engine and the loader cost: ``python -m tests.benchmarks.train``.

All sides of a ratio run in turn in one process, so that a change of the machine's speed meets
each of them.

- ``ar_step_to_transformers``: training steps per second of our AR model over those of
  ``transformers.LlamaForCausalLM`` with the same weights, batch, precision and optimizer. Target:
  at least 1.1. ``ar_step_to_transformers_same_loss`` gives the peer our loss too (the head at video
  positions, over the video ids): what is left is the decoder alone.
- ``compiled_to_eager``: our steps per second with ``run.compile_blocks`` over those without. No
  target.
- ``engine_overhead``: what a step of the engine (DeepSpeed, loader, log, checks) takes longer than
  the same step in a bare PyTorch loop, as a share of the latter. Target: at most 0.05.
- ``data_wait``: the share of the engine's time spent waiting for data. Target: at most 0.02.
- ``loader_to_scan``: rows per second out of the loader, in training order, over those of a raw
  pyarrow scan of the same files. Target: at least 0.8.
"""

import argparse
import copy
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_prep.loader import Loader, Mix
from data_prep.shards import ROW_GROUP_BYTES
from infra import cluster, storage
from infra.config import build
from infra.job import execute
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.loss import next_token_loss, token_nll
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.loong.sequence import TokenBatch, build_batch
from models.autoregressive.loong.vocabulary import Vocabulary
from models.codec import CodecSpec
from ray_jobs import train_autoregressive
from ray_jobs.training import launch as launching
from tests import shard_artifacts
from tests.benchmarks.report import report
from tests.shard_artifacts import row, tokens_spec, window

TEXT_TOKENS = 60
LATENTS = (5, 16, 16)  # 17 frames of 128 x 128 pixels
LONG = (17, 16, 16)  # 65 frames
WARM_UP = 3
OVERHEAD = "overhead.json"
TARGETS = {
    "ar_step_to_transformers": ">= 1.1",
    "engine_overhead": "<= 0.05",
    "loader_to_scan": ">= 0.8",
    "data_wait": "<= 0.02",
}
SHAPE = ARConfig(
    vocabulary=Vocabulary(text=32_000, video=8_192),
    hidden=512,
    intermediate=1_376,
    layers=8,
    heads=8,
    max_positions=2_048,
    max_text_tokens=TEXT_TOKENS,
)


class Side:
    """One of the things compared: a model, its loss, its optimizer."""

    def __init__(self, model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> None:
        self.model, self.loss = model.train(), loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.seconds: list[float] = []

    def step(self) -> float:
        """Take one training step, timed; return its loss."""
        begun = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        value = loss.item()
        self.seconds.append(time.perf_counter() - begun)
        return value


def peer(config: ARConfig, ours: LongtakeLlama) -> LlamaForCausalLM:
    """Return transformers' model of the same shape with the same weights."""
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary.total,
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads or config.heads,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            max_position_embeddings=config.max_positions,
            attention_dropout=0.0,
            use_cache=False,
        )
    )
    theirs.set_attn_implementation("sdpa")
    theirs.load_state_dict(ours.state_dict())
    return theirs


def compare_step(rounds: int, batch_size: int) -> dict[str, float]:
    """Return our steps per second over the peer's, with the peer's loss and with ours."""
    torch.manual_seed(0)
    config = SHAPE
    codes = torch.randint(config.vocabulary.video, (batch_size, *LATENTS))
    text = torch.randint(config.vocabulary.text, (batch_size, TEXT_TOKENS)).tolist()
    batch = build_batch(config, text, codes)
    is_video = (batch.ids_BS >= config.vocabulary.video_ids.start) & (
        batch.ids_BS < config.vocabulary.video_ids.stop
    )
    labels = torch.where(is_video, batch.ids_BS, -100)
    ours = LongtakeLlama(config)
    theirs, same_loss, compiled = peer(config, ours), peer(config, ours), copy.deepcopy(ours)
    compiled.compile_blocks()
    sides = {
        "longtake": Side(ours, lambda: next_token_loss(token_nll(ours, batch))),
        "longtake, compiled": Side(compiled, lambda: next_token_loss(token_nll(compiled, batch))),
        "transformers": Side(theirs, lambda: theirs(input_ids=batch.ids_BS, labels=labels).loss),
        "transformers, our loss": Side(same_loss, lambda: _our_loss(same_loss, config, batch)),
    }
    losses = {name: side.step() for name, side in sides.items()}  # warms up
    if abs(losses["longtake"] - losses["transformers, our loss"]) > 1e-4:
        raise AssertionError(f"the same weights and batch give other losses: {losses}")
    for side in sides.values():
        side.seconds.clear()
    for _ in range(rounds):
        for side in sides.values():
            side.step()
    tokens = batch.ids_BS.numel()
    for name, side in sides.items():
        middle = statistics.median(side.seconds)
        speed = f"{middle:.2f} s a step, {tokens / middle:.0f} tokens/s"
        print(f"{name}: {speed} (loss {losses[name]:.4f})")
    ratio = {name: _ratio(sides[name], sides["longtake"]) for name in sides}
    return {
        "ar_step_to_transformers": ratio["transformers"],
        "ar_step_to_transformers_same_loss": ratio["transformers, our loss"],
        "compiled_to_eager": 1 / ratio["longtake, compiled"],
    }


def _our_loss(theirs: LlamaForCausalLM, config: ARConfig, batch: TokenBatch) -> torch.Tensor:
    hidden_BSD = theirs.model(input_ids=batch.ids_BS).last_hidden_state
    start, count = int(batch.video_start_B[0]), batch.codes_BTHW[0].numel()
    hidden_BLD = hidden_BSD[:, start - 1 : start - 1 + count]
    logits = hidden_BLD @ theirs.lm_head.weight[config.vocabulary.video_ids].T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.codes_BTHW.flatten())


def _ratio(slow: Side, fast: Side) -> float:
    """Return the middle of the rounds' ratios of seconds."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def write_tokens(folder: Path, clips: int, windows: int, latents: tuple[int, int, int]) -> str:
    """Write token shards of random codes as `tokenize` lays them out; return their URI."""
    random = np.random.default_rng(0)
    spec = tokens_spec(SHAPE.vocabulary.video, dtype="uint16")
    frames = build(CodecSpec, spec.codec or {}).frames_of_latents(latents[0])
    per_file = 2 * ROW_GROUP_BYTES // (windows * 2 * math.prod(latents))

    def clip(number: int) -> dict[str, Any]:
        codes = random.integers(SHAPE.vocabulary.video, size=(windows, *latents), dtype=np.uint16)
        text = random.integers(SHAPE.vocabulary.text, size=TEXT_TOKENS, dtype=np.int32)
        split = "validation" if number % 50 == 0 else "train"
        held = [window(data, frames, 8 * place) for place, data in enumerate(codes)]
        return row(f"{number:032x}", held, split=split, text=text.tobytes())

    files = [
        [clip(number) for number in range(first, min(first + per_file, clips))]
        for first in range(0, clips, per_file)
    ]
    tokens = clips * windows * math.prod(latents)
    counts = {"tokens": tokens, "codebook_size": SHAPE.vocabulary.video}
    about = {"fps": 12.0, "codec_fingerprint": "benchmark", "text": {"kind": "pieces"}}
    return shard_artifacts.write(folder, spec, files, summary={**counts, **about})


def compare_loader(rounds: int) -> float:
    """Return the loader's rows per second over those of a pyarrow scan of the same files."""
    clips, windows, batch = 12_000, 4, 50
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        uri = write_tokens(Path(folder), clips, windows, LONG)
        files = storage.list_files(storage.join(uri, "tokens"), (".parquet",))
        ratios = []
        for number in range(rounds + 1):
            begun = time.perf_counter()
            rows = sum(table.num_rows for file in files for table in _row_groups(file))
            scan = rows / (time.perf_counter() - begun)
            begun = time.perf_counter()
            loader = Loader(uri, "train", [Mix(frames=65)], 10**6, batch, seed=number)
            steps = len(loader) // batch
            read = sum(len(loader.batch(step)) for step in range(steps))
            ours = read / windows / (time.perf_counter() - begun)
            if number:  # the first round fills the page cache
                ratios.append(ours / scan)
                print(f"round {number}: scan {scan:.0f}, loader {ours:.0f} rows/s")
    return statistics.median(ratios)


def _row_groups(file: str):
    with storage.open_input(file) as source:
        parquet = pq.ParquetFile(source)
        for number in range(parquet.num_row_groups):
            yield parquet.read_row_group(number)


def interleaved(settings: dict[str, Any]) -> None:
    """Train like the engine's loop, and take each step in a bare PyTorch loop before it."""
    from ray_jobs.training import loop

    work = settings["work"]
    timings: dict[str, list[float]] = {"entered": [], "bare": []}

    class Interleaved(loop.Run):
        bare = None  # no types here: this is sent to the worker by value, and they are not

        def _step(self, engine, stage, samples):
            timings["entered"].append(time.perf_counter())
            if self.bare is None:
                copied = copy.deepcopy(self.work.task.build())
                copied.load_state_dict(engine.module.state_dict())
                self.bare = Side(copied, lambda: work.task.loss(copied, self.samples, stage).loss)
            self.samples = samples
            self.bare.step()
            timings["bare"] = self.bare.seconds
            return super()._step(engine, stage, samples)

    loop.Run = Interleaved
    loop.train(settings)
    storage.write_json(storage.join(work.output, OVERHEAD), timings)


def compare_engine(steps: int) -> dict[str, float]:
    """Return what the engine adds to a bare step, and the share of its time spent waiting."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder, cluster.session():
        tree = {
            "input": [write_tokens(Path(folder), 200, 4, LATENTS)],
            "output": f"{folder}/trained",
            "resources": {"workers": 1, "cpus_per_worker": cores},
            "model": SHAPE.model_dump(),
            "stages": [
                {"name": "short", "steps": steps, "batch_size": 1, "data": [{"frames": 17}]}
            ],
            "run": {"log_every_steps": 1, "validation_windows": 1},
        }
        launching.train = interleaved
        execute(
            train_autoregressive.JOB, build(train_autoregressive.TrainAutoregressiveConfig, tree)
        )
        timings = storage.read_json(f"{folder}/trained/{OVERHEAD}")
        lines = Path(folder, "trained", "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["split"] == "train"]
    bare = timings["bare"][WARM_UP:-1]
    whole = [b - a for a, b in itertools.pairwise(timings["entered"])][WARM_UP:]
    engine = [both - alone for both, alone in zip(whole, bare, strict=True)]
    seconds = np.diff([record["seconds"] for record in records])[WARM_UP - 1 : -1]
    waited = [r["data_wait"] * s for r, s in zip(records[WARM_UP:-1], seconds, strict=True)]
    print(f"bare step {statistics.median(bare):.3f} s, engine {statistics.median(engine):.3f} s")
    overhead = statistics.median(e / b for e, b in zip(engine, bare, strict=True)) - 1
    return {"engine_overhead": overhead, "data_wait": sum(waited) / sum(engine)}


def main() -> None:
    """Measure all ratios and report them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the step and of the loader")
    parser.add_argument("--batch-size", type=int, default=2, help="clips in a step of the model")
    parser.add_argument("--engine-steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    ratios = {
        "loader_to_scan": compare_loader(args.rounds),
        **compare_step(args.rounds, args.batch_size),
        **compare_engine(args.engine_steps),
    }
    report("train", ratios, TARGETS)


if __name__ == "__main__":
    main()
