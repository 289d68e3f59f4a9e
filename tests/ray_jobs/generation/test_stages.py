"""A toy system of two stages: planned on one pool of actors, painted on another, made once."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from data_prep.decode import decode
from infra import artifact, config, storage
from infra.errors import UserError
from infra.job import Job, execute
from ray_jobs import generate, video_table
from ray_jobs.generate import GenerateConfig
from ray_jobs.generation.system import FilmFormat, Frames, Group, Stage, SystemConfig
from ray_jobs.prompts import Prompt

FILM = FilmFormat(frames=6, fps=8.0, height_px=16, width_px=32, joins=(3,))


class ToyConfig(SystemConfig):
    """Plans a brightness for each video and paints it."""

    kind: Literal["toy"] = "toy"
    brightest: Annotated[int, Field(ge=0, le=255)] = 200
    away: bool = False
    """Storage does not answer the planner."""
    refuse: bool = False

    def open(self, inputs: Sequence[str]) -> "Toy":
        return Toy(tuple(inputs))


@dataclass(frozen=True)
class Toy:
    inputs: tuple[str, ...]
    film: FilmFormat = FILM

    @property
    def models(self) -> dict[str, str]:
        return {"planner": "0" * 16, "painter": "1" * 16}

    def plan(self, prompts: Sequence[Prompt]) -> list[str]:
        return [f"paint {len(prompts)} prompts"]

    def stages(self) -> list[Stage]:
        return [Stage("plan", Planner, {"uri": self.inputs[0]}), Stage("paint", Painter)]


class Planner:
    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __call__(self, group: Group, carried: bytes) -> bytes:
        settings: Any = group.settings
        if settings.away:
            raise storage.Unavailable("s3://b/model: no answer")
        if settings.refuse:
            raise UserError("the planner refuses")
        assert carried == b""
        shades = [video.seed % (settings.brightest + 1) for video in group.videos]
        return json.dumps(shades).encode()


class Painter:
    def __call__(self, group: Group, carried: bytes) -> Iterator[Frames]:
        shades = np.array(json.loads(carried), np.uint8)
        assert len(shades) == len(group.videos)
        half_BFHWC = np.broadcast_to(shades[:, None, None, None, None], (len(shades), 3, 16, 32, 3))
        yield Frames(half_BFHWC)
        yield Frames(half_BFHWC, [1.0] * len(shades))


class ToyGenerateConfig(GenerateConfig):
    """The job's own config with the toy for a system."""

    system: ToyConfig  # type: ignore[assignment]


JOB = Job("generate", "videos", ToyGenerateConfig, generate.plan, generate.run)


def settings(tmp_path: Path, name: str = "out", **system: Any) -> ToyGenerateConfig:
    (tmp_path / "input").mkdir(exist_ok=True)
    tree = {
        "input": [str(tmp_path / "input")],
        "output": str(tmp_path / name),
        "prompts": ["a", "b"],
        "videos_per_prompt": 2,
        "system": {"kind": "toy", "videos_at_once": 3, **system},
        "resources": {"cpus_per_worker": 0.5},
        "stage_resources": {"paint": {"workers": 2, "cpus_per_worker": 0.25}},
    }
    return config.build(ToyGenerateConfig, tree)


def test_the_plan_names_each_stage_with_its_resources(tmp_path: Path):
    assert generate.plan(settings(tmp_path)) == [
        "4 videos of 6 frames, 32x16 at 8 fps, 3 at once",
        "stage plan: 1 actors of 0.5 CPUs, 0 GPUs",
        "stage paint: 2 actors of 0.25 CPUs, 0 GPUs",
        "paint 2 prompts",
    ]


def test_resources_change_no_fingerprint(tmp_path: Path):
    one = settings(tmp_path)
    other = one.model_copy(update={"stage_resources": {}})
    assert artifact.fingerprint("videos", one) == artifact.fingerprint("videos", other)
    darker = settings(tmp_path, brightest=9)
    assert artifact.fingerprint("videos", one) != artifact.fingerprint("videos", darker)


@pytest.mark.ray
def test_what_one_stage_plans_another_paints(ray_session: None, tmp_path: Path):
    execute(JOB, settings(tmp_path))
    shared = generate.start_actors(settings(tmp_path))
    for name in ("shared", "again"):  # a sweep's runs on the same actors
        generate.run(
            settings(tmp_path, name), artifact.begin("videos", settings(tmp_path, name)), shared
        )
    shared.close()
    tables = [list(video_table.read(str(tmp_path / name))) for name in ("out", "shared", "again")]
    for rows in zip(*tables, strict=True):
        assert len({json.dumps(row | {"seconds": 0}) for row in rows}) == 1
    assert [row["video_id"] for row in tables[0]] == [f"{n:09d}" for n in range(4)]
    for row in tables[0]:
        assert row["models"] == {"planner": "0" * 16, "painter": "1" * 16}
        assert row["settings"]["brightest"] == 200
        assert (row["joins"], row["join_colour_drift"]) == ([3], [1.0])
        film = np.concatenate(
            [c.frames_THWC for c in decode(tmp_path / "out" / row["file"], size=(32, 16))]
        )
        assert film.shape == (6, 16, 32, 3)
        assert np.abs(film.astype(int) - row["seed"] % 201).max() <= 2


@pytest.mark.ray
def test_what_stops_the_first_stage_stops_the_job(ray_session: None, tmp_path: Path):
    with pytest.raises(storage.Unavailable, match="no answer"):
        execute(JOB, settings(tmp_path, "away", away=True))
    with pytest.raises(UserError, match="the planner refuses"):
        execute(JOB, settings(tmp_path, "refused", refuse=True))
    assert not list((tmp_path / "away").rglob("*.mp4"))
