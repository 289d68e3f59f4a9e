"""A corpus of moving shapes as MP4 files and a manifest that `prepare` reads."""

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data_prep.encode import Mp4Writer
from data_prep.samples.moving_shapes.captions import caption
from data_prep.samples.moving_shapes.drawing import draw
from data_prep.samples.moving_shapes.scene import Scene, draw_cast, draw_scene
from infra import seeding, storage
from infra.config import OutputUri, Section
from infra.errors import UserError
from infra.progress import Progress

MANIFEST = "manifest.jsonl"
Size = Annotated[int, Field(ge=32, le=4096, multiple_of=2)]


class FilmConfig(Section):
    """What films of moving shapes look like."""

    width_px: Size = 256
    height_px: Size = 256
    fps: Annotated[float, Field(ge=1, le=120)] = 24.0
    """Frames a second."""
    scene_s: Annotated[float, Field(ge=0.5)] = 4.0
    """Seconds of each scene, rounded to whole frames."""
    scenes_max: Annotated[int, Field(ge=1)] = 2
    """A film has one to this many scenes with a cut between them."""
    objects_max: Annotated[int, Field(ge=1, le=3)] = 3
    """A film has one to this many shapes."""
    changing: Annotated[float, Field(ge=0, le=1)] = 0.4
    """The share of shapes that move now faster, now slower."""


class CorpusConfig(FilmConfig):
    """Which corpus of moving shapes to write, and where."""

    output: OutputUri
    """A directory or prefix that holds no corpus yet."""
    films: Annotated[int, Field(ge=1)] = 100
    """How many films; the first ones are the same whatever this is."""
    seed: int = 0
    """Decides what the films show, to the pixel."""
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    """x264's constant quality: 18 looks lossless, 40 is poor."""


@dataclass(frozen=True)
class Film:
    """A film before it is drawn: everything that is known of it."""

    caption: str
    """True of each scene, and of each part of a scene."""
    scenes: tuple[Scene, ...]
    width_px: int
    height_px: int
    fps: float

    @property
    def cuts(self) -> list[int]:
        """The frames that begin a scene, without the first one."""
        return np.cumsum([self._frames(scene) for scene in self.scenes])[:-1].tolist()

    def __len__(self) -> int:
        """Return the number of frames."""
        return sum(map(self._frames, self.scenes))

    def frames(self) -> Iterator[np.ndarray]:
        """Draw the frames one by one, uint8 RGB (height_px, width_px, 3)."""
        for scene in self.scenes:
            for number in range(self._frames(scene)):
                yield draw(scene, number / self.fps, self.width_px, self.height_px)

    def truth(self) -> dict[str, Any]:
        """Return what the film shows as plain JSON values; lengths are in widths of the picture."""
        height = self.height_px / self.width_px
        scenes = []
        for scene in self.scenes:
            overlaps = [
                {"behind": a, "in_front": b, "from_s": round(begin, 3), "to_s": round(end, 3)}
                for a, b, begin, end in scene.overlaps(height)
            ]
            scenes.append({**asdict(scene), "overlaps": overlaps})
        return {"fps": self.fps, "frames": len(self), "cuts": self.cuts, "scenes": scenes}

    def _frames(self, scene: Scene) -> int:
        return max(1, round(scene.seconds * self.fps))


def film(config: FilmConfig, seed: int, number: int) -> Film:
    """Return film `number` of the corpus of a seed."""
    rng = seeding.rng(seed, "moving_shapes", number)
    height = config.height_px / config.width_px
    cast = draw_cast(rng, config.objects_max, config.changing, config.scene_s, height)
    bright = bool(rng.integers(2))
    scenes = tuple(
        draw_scene(rng, cast, config.scene_s, bright ^ bool(place % 2), height)
        for place in range(int(rng.integers(1, config.scenes_max + 1)))
    )
    return Film(caption(cast), scenes, config.width_px, config.height_px, config.fps)


def write(config: CorpusConfig) -> str:
    """Write films and then their manifest; return the manifest's URI.

    Raises:
        UserError: the output holds a corpus, or cannot be written.
    """
    manifest = storage.join(config.output, MANIFEST)
    if storage.exists(manifest):
        raise UserError(f"output {config.output}: holds a corpus; remove it or name another place")
    digits = max(6, math.ceil(math.log10(config.films)))
    rows = []
    with Progress(config.films, "moving_shapes", "films") as progress:
        for number in range(config.films):
            name = f"films/{number:0{digits}d}.mp4"
            one = film(config, config.seed, number)
            write_film(one, storage.join(config.output, name), config.crf)
            rows.append(json.dumps({"uri": name, "caption": one.caption, "truth": one.truth()}))
            progress.advance()
    storage.write_text(manifest, "".join(f"{row}\n" for row in rows))
    return manifest


def write_film(one: Film, uri: str, crf: int = 18) -> None:
    """Draw a film and write it as an MP4 to a local path or a remote URI."""
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        path = Path(folder) / "film.mp4"
        with Mp4Writer(path, one.fps, one.width_px, one.height_px, crf) as writer:
            for frame_HWC in one.frames():
                writer.write(frame_HWC)
        storage.write_bytes(uri, path.read_bytes())
