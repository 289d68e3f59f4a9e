"""generate: what it refuses, what it plans, and what it says of each video."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_prep.decode import decode
from infra import config, storage
from infra.errors import UserError
from ray_jobs import video_table
from ray_jobs.generate import GenerateConfig, Generator, _groups, _missing, _videos, plan
from tests.ray_jobs import untrained

EXTENSION = {"total_frames": 9 + 4 + 4 + 2, "window_frames": 9, "reencode_frames": 5}
"""Windows begin at frames 0, 9, 13 and 17: 0, 1.125, 1.625 and 2.125 s."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return untrained.write(tmp_path_factory.mktemp("models"))


def _settings(models: list[str], output: Path | str = "/unused", **keys: Any) -> GenerateConfig:
    tree = {
        "input": models,
        "output": str(output),
        "extension": EXTENSION,
        "sampling": {"top_k": 8},
        "prompts": ["a cat"],
        **keys,
    }
    return config.build(GenerateConfig, tree)


def _over_time(*cues: tuple[str, float]) -> dict[str, Any]:
    return {"over_time": [{"text": text, "from_s": from_s} for text, from_s in cues]}


def _made(settings: GenerateConfig, models: list[str], output: Path, number: int = 0) -> Any:
    Generator(settings, *models, str(output))({"group": number})
    return storage.read_json(video_table.record(str(output), _videos(settings)[number]["video_id"]))


def test_the_record_says_how_the_video_was_made(models: list[str], tmp_path: Path):
    prompts = ["a dog", _over_time(("a cat", 0), ("a cat asleep", 1.5))]
    settings = _settings(
        models,
        tmp_path,
        prompts=prompts,
        extension={**EXTENSION, "strategy": "naive", "match_colour": True},
        sampling={"top_k": 8, "guidance_scale": 2.0},
    )
    record = _made(settings, models, tmp_path, number=1)
    assert record["prompt"] == "a cat / a cat asleep"
    assert record["prompts"] == prompts[1]["over_time"]
    assert record["joins"] == [9, 13, 17]
    assert len(record["join_colour_drift"]) == 3
    assert all(0 <= drift <= 442 for drift in record["join_colour_drift"])
    assert record["strategy"] == "naive"
    assert record["match_colour"] is True
    assert record["guidance_scale"] == 2.0
    table = pa.Table.from_pylist([record], video_table.SCHEMA)
    assert table.to_pylist()[0] == record  # the table has all of it
    frames = sum(len(c.frames_THWC) for c in decode(tmp_path / record["file"], long_side_px=24))
    assert frames == 19


def test_one_text_is_that_text_all_along(models: list[str], tmp_path: Path):
    record = _made(_settings(models, tmp_path / "a"), models, tmp_path / "a")
    assert record["prompt"] == "a cat"
    assert record["prompts"] == [{"text": "a cat", "from_s": 0.0}]
    same = _over_time(("a cat", 0), ("a cat", 1.0))
    other = _over_time(("a cat", 0), ("seven grey boats", 1.0))
    films = [storage.read_bytes(str(tmp_path / "a" / record["file"]))]
    for name, prompt in (("same", same), ("other", other)):
        settings = _settings(models, tmp_path / name, prompts=[prompt])
        made = _made(settings, models, tmp_path / name)
        films.append(storage.read_bytes(str(tmp_path / name / made["file"])))
    assert films[0] == films[1] != films[2]


def test_videos_made_side_by_side_are_those_made_alone(models: list[str], tmp_path: Path):
    prompts = ["a cat", _over_time(("a much longer text on a dog", 0), ("a dog asleep", 1.5))]
    alone = _settings(models, tmp_path / "alone", prompts=prompts, videos_per_prompt=2)
    side = alone.model_copy(update={"videos_at_once": 3})
    assert [len(rows) for rows in _groups(side)] == [3, 1]
    for settings, output in ((alone, tmp_path / "alone"), (side, tmp_path / "side")):
        generator = Generator(settings, *models, str(output))
        for number in range(len(_groups(settings))):
            generator({"group": number})
    for row in _videos(alone):
        said = [
            storage.read_json(video_table.record(str(tmp_path / name), row["video_id"]))
            for name in ("alone", "side")
        ]
        films = [tmp_path / name / said[0]["file"] for name in ("alone", "side")]
        assert films[0].read_bytes() == films[1].read_bytes()
        assert said[0] | {"seconds": 0} == said[1] | {"seconds": 0}


def test_a_group_that_lacks_a_video_is_made_whole(models: list[str], tmp_path: Path):
    settings = _settings(models, tmp_path, videos_per_prompt=5, videos_at_once=2)
    assert _missing(settings, str(tmp_path)) == [0, 1, 2]
    for row in _videos(settings)[:3]:
        storage.write_json(video_table.record(str(tmp_path), row["video_id"]), {})
    assert _missing(settings, str(tmp_path)) == [1, 2]


def test_the_plan_names_the_windows_of_each_prompt(models: list[str]):
    prompt = _over_time(("a cat", 0), ("a cat asleep", 1.5))
    lines = plan(_settings(models, prompts=["a dog", prompt]))
    assert lines[2:] == [
        "prompt: a dog",
        "prompt 1 from 0 s, windows 0 to 1: a cat",
        "prompt 1 from 1.5 s, windows 2 to 3: a cat asleep",
    ]
    assert "re-encoded" in lines[1]
    naive = plan(_settings(models, extension={**EXTENSION, "strategy": "naive"}))
    assert "kept as their tokens" in naive[1]


@pytest.mark.parametrize(
    ("cues", "words"),
    [
        ([("a", 1.0)], "the first must be 0"),
        ([("a", 0), ("b", 2.0), ("c", 1.0)], "ascend"),
        ([("a", 0), ("b", 1.0), ("c", 1.0)], "ascend"),
        ([("a", -1.0)], "greater than or equal to 0"),
        ([], "at least 1 item"),
        ([("a", 0), ("b", 1.2), ("c", 1.5)], r"over_time.1.from_s: 1.2: no window begins"),
        ([("a", 0), ("b", 9.0)], r"windows begin at 0, 1.125, 1.625, 2.125 s"),
    ],
)
def test_refuses_prompts_over_time(models: list[str], cues: list[tuple[str, float]], words: str):
    with pytest.raises(UserError, match=words):
        plan(_settings(models, prompts=[_over_time(*cues)]))
