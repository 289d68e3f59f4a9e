"""Strict configs: what is refused, what wins over what."""

import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from infra import config
from infra.config import JobConfig, Section
from infra.errors import UserError


class Inner(Section):
    rate: Annotated[float, Field(gt=0)] = 1.0
    name: str = "a"


class Example(JobConfig):
    steps: Annotated[int, Field(ge=1)] = 10
    inner: Inner = Inner()
    stages: tuple[Inner, ...] = ()


BASE = ["input=/in", "output=/out"]


def test_defaults_files_and_overrides_win_in_that_order(tmp_path: Path):
    low, high = tmp_path / "low.yaml", tmp_path / "high.yaml"
    low.write_text("steps: 2\ninner: {rate: 2.0, name: low}\n")
    high.write_text("inner: {name: high}\n")
    loaded = config.load(Example, [low, high], [*BASE, "steps=5"])
    assert (loaded.steps, loaded.inner.rate, loaded.inner.name) == (5, 2.0, "high")


def test_a_dump_loads_back_equal(tmp_path: Path):
    loaded = config.load(Example, [], [*BASE, "stages=[{rate: 3.0}]", "stages.0.name=x"])
    file = tmp_path / "dump.yaml"
    file.write_text(config.dump(loaded))
    assert config.load(Example, [file]) == loaded
    assert loaded.stages[0] == Inner(rate=3.0, name="x")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stesp=3", "stesp: unknown key; did you mean steps?"),
        ("inner.rat=3", "inner.rat: unknown key; did you mean rate?"),
        ("steps=0", "steps: 0 is not allowed: should be greater than or equal to 1"),
        ("steps=many", "steps: 'many' is not allowed: should be a valid integer"),
        ("steps=1.5", "steps: 1.5 is not allowed"),
        ("inner.rate=-1", "inner.rate: -1 is not allowed: should be greater than 0"),
        ("input=ftp://x/y", "allowed are local paths, file:// and s3:// URIs"),
        ("inner", "expected key=value"),
        ("steps.deep=1", "steps: {'deep': 1} is not allowed"),
    ],
)
def test_bad_input_is_one_line_that_names_key_and_value(override: str, said: str):
    with pytest.raises(UserError) as caught:
        config.load(Example, [], [*BASE, override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_files_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="output: missing"):
        config.load(Example, [], ["input=/in"])
    with pytest.raises(UserError, match=r"none\.yaml: not found"):
        config.load(Example, [tmp_path / "none.yaml"], BASE)
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(UserError, match="not YAML"):
        config.load(Example, [bad], BASE)


def test_a_config_cannot_be_changed():
    loaded = config.load(Example, [], BASE)
    with pytest.raises(ValueError, match="frozen"):
        loaded.steps = 3  # pyright: ignore


def test_local_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    loaded = config.load(Example, [], ["input=[a, 's3://b/c/']", "output=out"])
    assert loaded.input == (f"{tmp_path}/a", "s3://b/c")
    assert loaded.output == f"{tmp_path}/out"


@pytest.mark.parametrize("output", ["out", "./out", "file://out", "out/../../x"])
def test_a_submitted_job_refuses_an_output_that_ray_removes(
    output: str, monkeypatch: pytest.MonkeyPatch
):
    config.build(config.JobConfig, {"input": "films", "output": output})
    monkeypatch.setenv(config.SUBMITTED, "{}")
    with pytest.raises(UserError, match=f"^output: .*{re.escape(output)}: below the working dir"):
        config.build(config.JobConfig, {"input": "films", "output": output})
    for kept in ("/out", "file:///out", "s3://b/out", "~/out"):
        config.build(config.JobConfig, {"input": "films", "output": kept})


def test_a_file_may_extend_one_beside_it(tmp_path: Path):
    (tmp_path / "low.yaml").write_text("steps: 2\ninner: {rate: 2.0, name: low}\n")
    (tmp_path / "middle.yaml").write_text("extends: low.yaml\ninner: {name: middle}\n")
    (tmp_path / "high.yaml").write_text("extends: middle.yaml\nsteps: 3\n")
    loaded = config.load(Example, [tmp_path / "high.yaml"], BASE)
    assert (loaded.steps, loaded.inner.rate, loaded.inner.name) == (3, 2.0, "middle")


@pytest.mark.parametrize("base", ["a.yaml", "../low.yaml", "[x]"])
def test_extending_itself_or_what_is_elsewhere_is_refused(tmp_path: Path, base: str):
    (tmp_path / "a.yaml").write_text(f"extends: {base}\n")
    with pytest.raises(UserError, match=r"a.yaml: extends .*allowed is the name of another file"):
        config.load(Example, [tmp_path / "a.yaml"], BASE)


def test_an_item_of_a_list_goes_by_its_name():
    stages = "stages=[{name: images}, {name: clips}]"
    loaded = config.load(Example, [], [*BASE, stages, "stages.clips.rate=3.0"])
    assert [stage.rate for stage in loaded.stages] == [1.0, 3.0]
    with pytest.raises(UserError, match=r"'clip' is no position in a list of 2, and no name: im"):
        config.load(Example, [], [*BASE, stages, "stages.clip.rate=3.0"])


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["inner.rate", "stages.0.rate", "steps"])
def test_what_is_no_number_is_refused(key: str, value: str, tmp_path: Path):
    """It would become null in the written config, and all such values one fingerprint."""
    with pytest.raises(UserError, match=rf"^{key}: -?(inf|nan) is not allowed: give a finite"):
        config.load(Example, [], [*BASE, "stages=[{}]", f"{key}={value}"])
    file = tmp_path / "a.yaml"
    file.write_text(f"inner: {{rate: {value}}}")
    with pytest.raises(UserError, match=r"^inner\.rate: "):
        config.load(Example, [file], BASE)
