"""generate: what it refuses, what it plans, and what it says of each video."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_prep.decode import decode
from infra import artifact, config, storage
from infra.config import Resources
from infra.errors import UserError
from infra.job import execute
from models import exports
from models.autoregressive.loong import LongtakeLlama, Vocabulary
from ray_jobs import units, video_table
from ray_jobs.generate import JOB, GenerateConfig, plan, requests_of, work_of
from ray_jobs.generation.stages import StageActor
from tests.ray_jobs import untrained

EXTENSION = {"total_frames": 9 + 4 + 4 + 2, "window_frames": 9, "reencode_frames": 5}
"""Windows begin at frames 0, 9, 13 and 17: 0, 1.125, 1.625 and 2.125 s."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return untrained.write(tmp_path_factory.mktemp("models"))


def _settings(models: list[str], output: Path | str = "/unused", **keys: Any) -> GenerateConfig:
    system = {"kind": "loong", "extension": EXTENSION, "sampling": {"top_k": 8}}
    tree = {
        "input": models,
        "output": str(output),
        "prompts": ["a cat"],
        **keys,
        "system": {**system, **keys.get("system", {})},
    }
    return config.build(GenerateConfig, tree)


def _over_time(*cues: tuple[str, float]) -> dict[str, Any]:
    return {"over_time": [{"text": text, "from_s": from_s} for text, from_s in cues]}


def _make(settings: GenerateConfig, *groups: int) -> list[dict[str, Any]]:
    """Make groups as an actor does; return the rows of their records."""
    system = settings.system.open(settings.input)
    work = work_of(settings, system, settings.output)
    (stage,) = system.stages()
    actor = StageActor(stage, Resources())
    for group in groups or range(work.requests.groups):
        actor.finish(work, group)
    return [
        row
        for group in groups or range(work.requests.groups)
        for row in storage.read_json(work.parts.uri(group))
    ]


def test_the_record_says_how_the_video_was_made(models: list[str], tmp_path: Path):
    prompts = ["a dog", _over_time(("a cat", 0), ("a cat asleep", 1.5))]
    settings = _settings(
        models,
        tmp_path,
        prompts=prompts,
        system={
            "extension": {**EXTENSION, "strategy": "naive", "match_colour": True},
            "sampling": {"top_k": 8, "guidance_scale": 2.0},
        },
    )
    (record,) = _make(settings, 1)
    assert record["prompt"] == "a cat / a cat asleep"
    assert record["prompts"] == prompts[1]["over_time"]
    assert record["joins"] == [9, 13, 17]
    assert len(record["join_colour_drift"]) == 3
    assert all(0 <= drift <= 442 for drift in record["join_colour_drift"])
    assert record["settings"] == config.as_tree(settings.system)
    assert record["settings"]["sampling"]["guidance_scale"] == 2.0
    assert record["models"] == {
        artifact.read(uri).kind: artifact.read(uri).identity for uri in models
    }
    table = pa.Table.from_pylist([video_table.as_columns(record)], video_table.SCHEMA)
    assert video_table.from_columns(table.to_pylist()[0]) == record  # the table has all of it
    frames = sum(len(c.frames_THWC) for c in decode(tmp_path / record["file"], long_side_px=24))
    assert frames == 19


def test_one_text_is_that_text_all_along(models: list[str], tmp_path: Path):
    films = []
    same = _over_time(("a cat", 0), ("a cat", 1.0))
    other = _over_time(("a cat", 0), ("seven grey boats", 1.0))
    for name, prompt in (("one", "a cat"), ("same", same), ("other", other)):
        (made,) = _make(_settings(models, tmp_path / name, prompts=[prompt]))
        films.append((tmp_path / name / made["file"]).read_bytes())
        if name == "one":
            assert made["prompts"] == [{"text": "a cat", "from_s": 0.0}]
    assert films[0] == films[1] != films[2]


def test_videos_made_side_by_side_are_those_made_alone(models: list[str], tmp_path: Path):
    keys = {
        "prompts": ["a cat", _over_time(("a much longer text on a dog", 0), ("a dog asleep", 1.5))],
        "videos_per_prompt": 2,
    }
    alone = _settings(models, tmp_path / "alone", **keys)
    side = _settings(models, tmp_path / "side", **keys, system={"videos_at_once": 3})
    requests = requests_of(side)
    assert [len(requests.group(number)) for number in range(requests.groups)] == [3, 1]
    for one, other in zip(_make(alone), _make(side), strict=True):
        films = [Path(s.output, one["file"]).read_bytes() for s in (alone, side)]
        assert films[0] == films[1]
        varies = {"seconds": 0, "settings": {}}
        assert one | varies == other | varies


@pytest.mark.ray
def test_a_run_makes_the_groups_that_have_no_record(ray_session, models: list[str], tmp_path: Path):
    keys = {"videos_per_prompt": 3, "resources": {"workers": 2}}
    straight = _settings(models, tmp_path / "straight", **keys, system={"videos_at_once": 2})
    summary = execute(JOB, straight)
    assert (summary["videos"], summary["frames"]) == (3, 57)
    resumed = straight.model_copy(update={"output": str(tmp_path / "resumed")})
    artifact.begin("videos", resumed)
    _make(resumed, 1)  # what a killed run had finished
    work = work_of(resumed, resumed.system.open(resumed.input), resumed.output)
    assert units.done(work.parts).tolist() == [False, True]
    record = Path(work.parts.uri(1))
    written_at = record.stat().st_mtime_ns
    execute(JOB, resumed)
    assert record.stat().st_mtime_ns == written_at
    for one, other in zip(*(video_table.read(s.output) for s in (straight, resumed)), strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
        films = [Path(s.output, one["file"]).read_bytes() for s in (straight, resumed)]
        assert films[0] == films[1]


def test_what_the_model_does_not_see_of_a_prompt_is_said(models: list[str], capsys):
    """The untrained model takes 16 tokens of a prompt."""
    prompt = "a cat walks over a wall and then it sees a dog that sleeps in the sun"
    plan(_settings(models, prompts=["a cat", prompt]))
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "cut" in x]
    assert "the model takes 16 of its " in line
    seen = line.partition("no more than: ")[2].split()
    assert 8 < len(seen) < len(prompt.split())
    assert seen == prompt.split()[: len(seen)]


def test_the_plan_names_the_windows_of_each_prompt(models: list[str]):
    prompt = _over_time(("a cat", 0), ("a cat asleep", 1.5))
    lines = plan(_settings(models, prompts=["a dog", prompt]))
    assert lines == [
        "2 videos of 19 frames, 24x16 at 8 fps",
        "stage windows: 1 actors of 1 CPUs, 0 GPUs",
        "3 joins: windows of 9 frames, the last 5 re-encoded",
        "prompt: a dog",
        "prompt 1 from 0 s, windows 0 to 1: a cat",
        "prompt 1 from 1.5 s, windows 2 to 3: a cat asleep",
    ]
    naive = plan(_settings(models, system={"extension": {**EXTENSION, "strategy": "naive"}}))
    assert "kept as their tokens" in naive[2]


@pytest.mark.parametrize(
    ("cues", "words"),
    [
        ([("a", 1.0)], "the first must be 0"),
        ([("a", 0), ("b", 2.0), ("c", 1.0)], "ascend"),
        ([("a", 0), ("b", 1.0), ("c", 1.0)], "ascend"),
        ([("a", -1.0)], "greater than or equal to 0"),
        ([("a", 0), ("b", np.inf)], "from_s: inf is not allowed: .*finite"),
        ([], "at least 1 item"),
        ([("a", 0), ("b", 1.2), ("c", 1.5)], r"over_time.1.from_s: 1.2: no window begins"),
        ([("a", 0), ("b", 9.0)], r"windows begin at 0, 1.125, 1.625, 2.125 s"),
    ],
)
def test_refuses_prompts_over_time(models: list[str], cues: list[tuple[str, float]], words: str):
    with pytest.raises(UserError, match=words) as caught:
        plan(_settings(models, prompts=[_over_time(*cues)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"system": {"sampling": {"top_k": 17}}}, r"system.sampling.top_k: 17; the model has 16"),
        (
            {"system": {"extension": {"total_frames": 49, "window_frames": 49}}},
            r"window_frames: 49; .* a sequence of 82 tokens, and the model holds 64",
        ),
        ({"system": {"kind": "none"}}, "system.kind: 'none' is not allowed"),
        ({"stage_resources": {"paint": {}}}, "stage_resources.paint: no stage.* windows"),
        ({"input": ["/a"]}, "expected kind: tokenizer or autoregressive"),
    ],
)
def test_what_can_be_known_is_refused_before_ray(models: list[str], keys: Any, words: str):
    with pytest.raises(UserError, match=words) as caught:
        plan(_settings(models, **keys))
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(120)
def test_eight_hours_and_long_prompts_are_planned_in_one_go(models: list[str], capsys):
    texts = [(f"word {n}", float(n)) for n in range(0, 8 * 3600, 10)]
    extension = {**EXTENSION, "total_frames": 8 * 3600 * 8}
    prompts = [_over_time(*texts), "word " * 10_000]
    lines = plan(_settings(models, prompts=prompts, system={"extension": extension}))
    assert lines[3:5] == [
        "prompt 0 from 0 s, windows 0 to 18: word 0",
        "prompt 0 from 10 s, windows 19 to 38: word 10",
    ]
    assert "no more than: " + " ".join(["word"] * 16) + "\n" in capsys.readouterr().err
    late = [_over_time(("a", 0), ("b", 9e9))]
    with pytest.raises(UserError, match=r"windows begin at .* s$") as caught:
        plan(_settings(models, prompts=late, system={"extension": extension}))
    assert len(str(caught.value)) < 300


def test_the_longest_window_that_passes_the_plan_is_the_longest_that_can_be_made(
    models: list[str], tmp_path: Path
):
    system = {"extension": {"total_frames": 37, "window_frames": 37}}  # 60 video tokens of 64
    fits = _settings(models, tmp_path, system=system)
    assert plan(fits)
    assert _make(fits)[0]["frames"] == 37
    longer = _settings(models, tmp_path / "b", system=system, prompts=["a cat asleep"])
    with pytest.raises(UserError, match="a sequence of 65 tokens, and the model holds 64"):
        plan(longer)
    with pytest.raises(ValueError, match="a sequence of 65 tokens exceeds max_positions 64"):
        _make(longer)


@pytest.mark.parametrize("place", [0, 1])
def test_weights_that_are_gone_or_of_another_shape_are_refused(
    models: list[str], tmp_path: Path, place: int
):
    given = [str(shutil.copytree(uri, tmp_path / Path(uri).name)) for uri in models]
    file = Path(given[place], "model.safetensors")
    shutil.copy(Path(models[1 - place], "model.safetensors"), file)
    with pytest.raises(UserError, match=r"model\.safetensors does not fit: missing"):
        plan(_settings(given))
    file.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: not found"):
        plan(_settings(given))


def test_a_prompt_beyond_the_models_vocabulary_is_refused(models: list[str], tmp_path: Path):
    given = [models[0], str(shutil.copytree(models[1], tmp_path / "autoregressive"))]
    vocabulary = Vocabulary(text=1000, video=16)
    exports.save(
        LongtakeLlama(untrained.AUTOREGRESSIVE.model_copy(update={"vocabulary": vocabulary})),
        Path(given[1]),
    )
    marker = f"{given[1]}/artifact.json"  # as of a model that came so
    storage.write_json(marker, {**storage.read_map(marker), "weights": {}})
    with pytest.raises(UserError, match=r"a prompt has the text id \d+; .* ids below 1000"):
        plan(_settings(given))


def test_a_text_model_that_is_gone_is_refused(models: list[str], tmp_path: Path):
    moved = tmp_path / "autoregressive"
    shutil.copytree(models[1], moved)
    summary = storage.read_json(str(moved / "summary.json"))
    gone = {**summary, "text": {"kind": "pieces", "model": str(tmp_path / "gone.model")}}
    storage.write_json(str(moved / "summary.json"), gone)
    with pytest.raises(UserError, match=r"gone.model") as caught:
        plan(_settings([models[0], str(moved)]))
    assert "\n" not in str(caught.value)


def test_another_text_model_under_the_same_path_is_refused(models: list[str], tmp_path: Path):
    moved = tmp_path / "autoregressive"
    shutil.copytree(models[1], moved)
    summary = storage.read_json(str(moved / "summary.json"))
    changed = {**summary, "text_fingerprint": "0" * 16}
    storage.write_json(str(moved / "summary.json"), changed)
    with pytest.raises(UserError, match=r"trained with text encoder 0{16}; what its config names"):
        plan(_settings([models[0], str(moved)]))


def test_a_model_of_another_tokenizers_codes_is_refused(models: list[str], tmp_path: Path):
    moved = tmp_path / "autoregressive"
    shutil.copytree(models[1], moved)
    summary = storage.read_json(str(moved / "summary.json"))
    other = {**summary, "tokenizer_fingerprint": "0" * 16}
    storage.write_json(str(moved / "summary.json"), other)
    with pytest.raises(UserError, match=r"trained on codes of tokenizer 0{16}, not of .*tokenizer"):
        plan(_settings([models[0], str(moved)]))
