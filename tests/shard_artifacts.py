"""Small artifacts of shards for tests, written by the parts that the jobs use."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import index, shards
from data_prep.shards import ShardSpec
from infra import artifact, storage
from infra.config import JobConfig

FRAMES = ShardSpec("frames")
TEXT = {"kind": "pieces", "fingerprint": "t", "dtype": "int32", "dim": None}


def tokens_spec(codebook_size: int = 8, **changes: Any) -> ShardSpec:
    """Return the spec of codes of a causal codec."""
    codec = {
        "time": {"kind": "causal", "stride": 4},
        "space_stride": 8,
        "latent": {"kind": "codes", "codebook_size": codebook_size},
    }
    return ShardSpec("tokens", **{"dtype": "uint8", "codec": codec, "codec_fingerprint": "c",
                                  "text": TEXT, **changes})  # fmt: skip


def window(data: np.ndarray, frames: int, start_frame: int = 0) -> dict[str, Any]:
    """Return a window as shards hold it."""
    return {"frames": frames, "start_frame": start_frame, "shape": list(data.shape),
            "data": data.tobytes()}  # fmt: skip


def row(clip_id: str, windows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return a row about a clip of a second at 12 frames a second."""
    return {
        "clip_id": clip_id, "video_id": "v", "caption": "film", "split": "train",
        "start_s": 0.0, "end_s": 1.0, "fps": 12.0, "motion": 1.0, "text": None,
        "frames": max((w["start_frame"] + w["frames"] for w in windows), default=0),
        "windows": windows, **changes,
    }  # fmt: skip


def write(
    folder: Path | str,
    spec: ShardSpec,
    files: list[list[dict[str, Any]]],
    per_group: int = 1 << 30,
    summary: dict[str, Any] | None = None,
) -> str:
    """Write a finished artifact with these rows, a list a file; return its URI."""
    source = f"{folder}/source.txt"
    storage.write_text(source, "test")
    config = JobConfig(input=(source,), output=f"{folder}/{spec.kind}")
    output = artifact.begin(spec.kind, config)
    for number, rows in enumerate(files):
        with (
            storage.open_output(output.path(spec.kind, f"part-{number:05d}.parquet")) as file,
            shards.Writer(file, spec) as writer,
        ):
            for place, one in enumerate(rows, 1):
                writer.add(one)
                if place % per_group == 0:
                    writer.end_row_group()
    index.build(output.uri, spec.kind)
    made = {"fps": 12.0, "text": {"kind": "pieces"}, "codec_fingerprint": spec.codec_fingerprint}
    facts = made if spec.kind == "tokens" else {}
    artifact.finish(output, spec.kind, {**facts, **(summary or {})}, time.monotonic())
    return output.uri
