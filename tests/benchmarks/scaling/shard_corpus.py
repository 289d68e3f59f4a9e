"""Generated token shards: the index of a corpus of any size over one real shard of random codes."""

import hashlib
import time
from typing import Any

import numpy as np

from data_prep import index, shards
from data_prep.analysis import clip_id
from data_prep.shards import ShardSpec
from infra import artifact, storage
from infra.config import as_tree
from infra.seeding import rng
from models.codec import CausalFrames, CodecSpec, Codes
from tests.benchmarks.scaling.corpus import CLIP_S, CLIPS, FPS

CODES = Codes(codebook_size=4096)
CODEC = CodecSpec(time=CausalFrames(stride=4), space_stride=8, latent=CODES)
WINDOWS = {1: 5, 17: 3, 65: 1}
"""How many windows of so many frames a clip of 65 frames has."""
SIDE_PX = 128
SHARD_BYTES = 128_000_000

Window = tuple[int, int, tuple[int, ...]]
"""Frames, first frame, and shape of its codes."""


def shard_spec() -> ShardSpec:
    """Return the spec of the generated shards."""
    text = {"kind": "pieces", "fingerprint": "0" * 16, "dtype": "int32", "dim": None}
    return ShardSpec("tokens", CODES.dtype, as_tree(CODEC), "0" * 16, text)


def write_shards(uri: str, videos: int, shard_bytes: int = SHARD_BYTES) -> int:
    """Write a finished artifact of tokens with the index of a corpus; return its shards' number.

    One shard of random codes is real. The index names it as often as the corpus would have shards.
    """
    spec, path = shard_spec(), "tokens/000000/part-000000000.parquet"
    windows, written, draw = _windows(), 0, rng(0, "codes")
    with storage.open_output(storage.join(uri, path)) as file, shards.Writer(file, spec) as writer:
        while written < shard_bytes:
            row = _row(writer.rows, windows, draw)
            written += sum(len(window["data"]) for window in row["windows"])
            writer.add(row)
    count = -(-videos * CLIPS // writer.rows)
    size_bytes = storage.size_bytes(storage.join(uri, path))
    described = index.describe(uri, [(path, size_bytes)])
    index.write(uri, (described for _ in range(count)))
    output = artifact.Output(uri, "0" * 16, artifact.State.NEW)
    artifact.finish(output, "tokens", {"clips": videos * CLIPS}, time.monotonic())
    return count


def _windows() -> list[Window]:
    """Return frames, start and shape of each window of a clip."""
    return [
        (frames, number * frames, CODEC.latent_shape(frames, SIDE_PX, SIDE_PX))
        for frames, count in WINDOWS.items()
        for number in range(count)
    ]


def _row(number: int, windows: list[Window], draw: np.random.Generator) -> dict[str, Any]:
    video = hashlib.sha256(b"%d" % (number // CLIPS)).hexdigest()[:32]
    begin = number % CLIPS * CLIP_S
    codes = draw.integers(0, CODES.codebook_size, sum(np.prod(s) for *_, s in windows))
    ends = np.cumsum([np.prod(shape) for *_, shape in windows])[:-1]
    return {
        "clip_id": clip_id(video, begin * FPS, (begin + CLIP_S) * FPS, "generated"),
        **{"video_id": video, "caption": "A scene.", "fps": 6.5, "frames": 65, "motion": 1.0},
        "split": "validation" if number % 20 == 0 else "train",
        **{"start_s": float(begin), "end_s": float(begin + CLIP_S)},
        "text": np.arange(8, dtype=np.int32).tobytes(),
        "windows": [
            {"frames": frames, "start_frame": start, "shape": list(shape),
             "data": some.astype(CODES.dtype).tobytes()}
            for (frames, start, shape), some in zip(windows, np.split(codes, ends), strict=True)
        ],
    }  # fmt: skip
