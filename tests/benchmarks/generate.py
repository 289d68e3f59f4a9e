"""How fast video tokens come, and what a long video costs: ``python -m tests.benchmarks.generate``.

All sides of a ratio run in turn in one process, with the same threads, weights, prompts and
settings (fp32, top-k 50).

- ``batch1_to_transformers``, ``batch8_to_transformers``: tokens per second of `generate_tokens`
  over those of ``transformers.LlamaForCausalLM.generate``, with its dynamic or its static cache,
  whichever is faster here. Targets: at least 2 and 3. The peer scores the whole vocabulary; ours
  scores the video ids alone, since no other id may come next. ``..._same_head`` gives the peer a
  head of just the video ids too: what is left is the decoder and the loop.
- ``batch1_to_bandwidth``, ``batch8_to_bandwidth``: tokens per second over what memory allows, when
  a step reads its weights and the tokens so far once, as fast as a large matrix times a vector.
- ``memory_60s_to_10s``: peak memory of a process that generates, decodes and writes a minute of
  video over that of ten seconds, with a tiny model. Target: at most 1.1.
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_prep.encode import Mp4Writer
from models.autoregressive.loong import (
    ARConfig,
    Cue,
    Extension,
    LongtakeLlama,
    Sampling,
    Vocabulary,
    extend,
    generate_tokens,
)
from models.tokenizer import CVQConfig, TokenizerConfig, VideoTokenizer
from tests.benchmarks.report import report

TEXT_TOKENS, WIDTH, FPS = 60, 16, 12
SAMPLING = Sampling(top_k=50)
SHAPE = ARConfig(
    vocabulary=Vocabulary(text=32_000, video=8_192),
    hidden=512,
    intermediate=1_376,
    layers=8,
    heads=8,
    tied=True,
    max_text_tokens=TEXT_TOKENS,
    max_positions=2_048,
)
TARGETS = {
    "batch1_to_transformers": ">= 2",
    "batch8_to_transformers": ">= 3",
    "memory_60s_to_10s": "<= 1.1",
}


class Side:
    """One of the things compared: a call that generates, and what it took each time."""

    def __init__(self, call: Callable[[], torch.Tensor]) -> None:
        self.call = call
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def run(self) -> torch.Tensor:
        """Generate once, timed."""
        begun, cpu = time.perf_counter(), time.process_time()
        made = self.call()
        self.seconds.append(time.perf_counter() - begun)
        self.cpu_seconds.append(time.process_time() - cpu)
        return made


def models() -> tuple[LongtakeLlama, LlamaForCausalLM, LlamaForCausalLM]:
    """Return our model, transformers' with its weights, and that with a head of video ids."""
    torch.manual_seed(0)
    ours = LongtakeLlama(SHAPE).eval()
    theirs = LlamaForCausalLM(LlamaConfig(**SHAPE.transformers_config())).eval()
    theirs.load_state_dict(ours.state_dict())
    theirs.generation_config.eos_token_id = None  # a clip has a given length
    same_head = copy.deepcopy(theirs)
    video = SHAPE.vocabulary.video_ids
    same_head.lm_head = torch.nn.Linear(SHAPE.hidden, SHAPE.vocabulary.video, bias=False)
    same_head.lm_head.weight.data = theirs.lm_head.weight.data[video].clone()
    same_head.config.vocab_size = SHAPE.vocabulary.video
    return ours, theirs, same_head


def sides(batch: int, tokens: int) -> dict[str, Side]:
    """Return what is compared at one batch size."""
    ours, theirs, same_head = models()
    vocabulary = SHAPE.vocabulary
    text = torch.randint(vocabulary.text, (batch, TEXT_TOKENS))
    special = {name: vocabulary.special_id(name) for name in ("begin_of_text", "end_of_text")}
    prompt = torch.nn.functional.pad(text, (1, 0), value=special["begin_of_text"])
    prompt = torch.nn.functional.pad(prompt, (0, 1), value=special["end_of_text"])
    prompt = torch.nn.functional.pad(prompt, (0, 1), value=vocabulary.begin_of_video)

    def we() -> torch.Tensor:
        return generate_tokens(
            ours,
            text.tolist(),
            latent_frames=1,
            height=tokens // WIDTH,
            width=WIDTH,
            sampling=SAMPLING,
            generator=[torch.Generator().manual_seed(row) for row in range(batch)],
        ).flatten(1)

    def they(model: Any, **cache: object) -> Callable[[], torch.Tensor]:
        @torch.inference_mode()
        def call() -> torch.Tensor:
            made = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                top_k=SAMPLING.top_k,
                temperature=SAMPLING.temperature,
                max_new_tokens=tokens,
                use_cache=True,
                **cache,
            )
            return made[:, prompt.shape[1] :]

        return call

    return {
        "longtake": Side(we),
        "transformers, dynamic cache": Side(they(theirs)),
        "transformers, static cache": Side(
            they(theirs, cache_implementation="static", disable_compile=True)
        ),
        "transformers, video ids alone": Side(they(same_head)),
    }


def compare(batch: int, tokens: int, rounds: int) -> tuple[dict[str, float], float]:
    """Return the ratios at one batch size, and our seconds for one step."""
    compared = sides(batch, tokens)
    for side in compared.values():  # warms up
        assert side.run().shape == (batch, tokens), "a side did not generate what it was asked for"
        side.seconds.clear()
        side.cpu_seconds.clear()
    for _ in range(rounds):
        for side in compared.values():
            side.run()
    for name, side in compared.items():
        middle = statistics.median(side.seconds)
        print(
            f"batch {batch}, {name}: {batch * tokens / middle:.0f} tokens/s, "
            f"{1000 * middle / tokens:.1f} ms a step, "
            f"{1000 * statistics.median(side.cpu_seconds) / tokens:.1f} of a CPU"
        )
    ours, dynamic, static, same_head = compared.values()
    fair = min(dynamic, static, key=lambda side: statistics.median(side.seconds))
    ratios = {
        f"batch{batch}_to_transformers": _ratio(fair, ours),
        f"batch{batch}_to_transformers_same_head": _ratio(same_head, ours),
    }
    return ratios, statistics.median(ours.seconds) / tokens


def _ratio(slow: Side, fast: Side) -> float:
    """Return the middle of the rounds' ratios of seconds."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def bandwidth(rounds: int = 9) -> float:
    """Return the bytes a second at which a matrix of 0.4 GB is multiplied with a vector."""
    matrix, vector = torch.ones(12_500, 8_000), torch.ones(8_000)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        torch.mv(matrix, vector)
        seconds.append(time.perf_counter() - begun)
    return matrix.nbytes / statistics.median(seconds)


def bytes_per_step(batch: int, tokens: int) -> float:
    """Bytes that a step has to read: blocks, the video ids' rows of the head, the cache so far."""
    blocks = SHAPE.layers * (4 * SHAPE.hidden**2 + 3 * SHAPE.hidden * SHAPE.intermediate)
    head = SHAPE.vocabulary.video * SHAPE.hidden
    seen = TEXT_TOKENS + 3 + tokens / 2
    return 4 * (blocks + head + batch * seen * SHAPE.layers * 2 * SHAPE.hidden)


def peak_of(seconds: int) -> tuple[int, int]:
    """Generate and write a video of a tiny model.

    Returns:
        This process' peak resident bytes, and how far they are above those before it began.
    """
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    before = _resident("VmRSS")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(TINY_TOKENIZER).eval()
    model = LongtakeLlama(TINY).eval()
    size = TINY_TOKENIZER.height_px
    with (
        tempfile.TemporaryDirectory(prefix="longtake-") as folder,
        Mp4Writer(Path(folder, "video.mp4"), FPS, size, size) as movie,
    ):
        for chunk in extend(
            model,
            tokenizer,
            [[Cue([1, 2, 3])]],
            extension=Extension(total_frames=seconds * FPS),
            height=size // tokenizer.spec.space_stride,
            width=size // tokenizer.spec.space_stride,
            sampling=SAMPLING,
            seeds=[0],
        ):
            for frame in chunk.frames_BFHWC[0].numpy():
                movie.write(frame)
    peak = _resident("VmHWM")
    return peak, peak - before


def _resident(kind: str) -> int:
    # not ru_maxrss: a child begins with its parent's
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(kind))


TINY = ARConfig(
    vocabulary=Vocabulary(text=100, video=64),
    hidden=32,
    intermediate=48,
    layers=1,
    heads=2,
    max_text_tokens=8,
    max_positions=512,
)
TINY_TOKENIZER = TokenizerConfig(
    height_px=32,
    width_px=32,
    channels=8,
    channel_multipliers=(1, 1, 1, 1),
    res_blocks=(0, 0, 0, 0),
    middle_blocks=0,
    temporal_kernels=(1, 1, 1, 1),
    groups=1,
    codebook=CVQConfig(size=64, dim=8),
)


def compare_memory() -> float:
    """Return the peak of a minute of video over that of ten seconds, each in a fresh process."""
    peaks = []
    for seconds in (10, 60):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peak, added = pool.submit(peak_of, seconds).result()
        peaks.append(peak)
        print(
            f"{seconds} s of video: at most {peak / 1e6:.0f} MB resident, "
            f"{added / 1e6:.0f} MB of it above the imports"
        )
    return peaks[1] / peaks[0]


def main() -> None:
    """Measure all ratios and report them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, default=256, help="a clip; a multiple of 16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ratios: dict[str, float] = {}
    for batch in (1, 8):
        speed = bandwidth()
        found, step_s = compare(batch, args.tokens, args.rounds)
        speed = statistics.mean((speed, bandwidth()))
        bound_s = bytes_per_step(batch, args.tokens) / speed
        print(
            f"batch {batch}: reading {bytes_per_step(batch, args.tokens) / 1e6:.0f} MB a step at "
            f"{speed / 1e9:.1f} GB/s allows {batch / bound_s:.0f} tokens/s"
        )
        ratios |= {**found, f"batch{batch}_to_bandwidth": bound_s / step_s}
    report("generate", {**ratios, "memory_60s_to_10s": compare_memory()}, TARGETS)


if __name__ == "__main__":
    main()
