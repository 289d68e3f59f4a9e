"""The job that continues held-out film over a join: its plan, its refusals, its figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra import artifact
from infra.config import build
from infra.errors import UserError
from ray_jobs import continuation
from ray_jobs.continuation import FIGURES, ContinuationConfig, plan
from tests import shard_artifacts
from tests.ray_jobs import untrained
from tests.shard_artifacts import row, window

FILM = 13  # two windows of 9 frames with 5 in common


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_inputs(tmp_path_factory.mktemp("continuation"))


def write_inputs(folder: Path) -> list[str]:
    """Write both models and frames; return their URIs."""
    rng, size = np.random.default_rng(0), (untrained.TOKENIZER.height_px, 24, 3)
    rows = [
        row(f"c{n}", [window(rng.integers(256, size=(45, *size), dtype=np.uint8), 45)], split=split)
        for n, split in enumerate(("train", "validation", "validation", "validation"))
    ]
    frames = shard_artifacts.write(folder, shard_artifacts.FRAMES, [rows], summary={"clips": 4})
    return [*untrained.write(folder), frames]


def settings(inputs: list[str], output: Path | str = "/unused", **keys: Any) -> ContinuationConfig:
    tree = {"input": inputs, "output": str(output), "window_frames": 9, "reencode_frames": 5,
            "films": 16, **keys}  # fmt: skip
    return build(ContinuationConfig, tree)


def test_the_plan_says_what_is_continued_and_how(inputs: list[str]):
    assert plan(settings(inputs, strategy="naive", films=9)) == [
        f"16 held-out films of {FILM} frames of {inputs[2]}",
        "the last 5 frames of a window of 9 enter the next one by naive",
    ]
    assert plan(settings(inputs[::-1]))  # in any order


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"window_frames": 10}, "window_frames: 10"),
        ({"reencode_frames": 4}, "reencode_frames: 4"),
        ({"reencode_frames": 9}, "reencode_frames: 9; allowed is less than window_frames 9"),
        ({"window_frames": 37, "reencode_frames": 33}, "window_frames: 37; .* model holds 64"),
        ({"window_frames": 33}, "61"),
    ],
)
def test_what_cannot_be_continued_is_refused(inputs: list[str], keys: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words) as caught:
        plan(settings(inputs, **keys))
    assert "\n" not in str(caught.value)


def test_one_input_of_each_kind_is_needed(inputs: list[str]):
    for some in (inputs[:2], [inputs[0], *inputs[:2]]):
        with pytest.raises(UserError, match="tokenizer, autoregressive, frames"):
            plan(settings(some))


def test_both_strategies_are_asked_about_the_same_film(inputs: list[str], tmp_path: Path):
    found, films = {}, {}
    for strategy in ("re-encode", "naive"):
        config = settings(inputs, tmp_path / strategy, strategy=strategy)
        output = artifact.begin("continuation", config)
        parts, factory = continuation.work_of(config, output.uri)
        worker = factory.build(**factory.arguments)
        assert [worker(part)["rows"] for part in range(parts.count)] == [8, 8]
        found[strategy] = continuation.run(config, output)  # finds all parts done
        rows = json.loads((tmp_path / strategy / "films.json").read_text())
        films[strategy] = [(film["clip_id"], film["start_frame"]) for film in rows]
        for name in FIGURES:
            mean = np.mean([film[name] for film in rows])
            assert found[strategy][name] == pytest.approx(mean)
    assert films["naive"] == films["re-encode"]
    assert {clip for clip, _ in films["naive"]} == {"c1", "c2", "c3"}, "held-out film alone"
    assert len(films["naive"]) == found["naive"]["films"] == 16
    assert found["re-encode"]["token_disagreement"] == 0
    assert 0 < found["naive"]["token_disagreement"] <= 1
    assert found["naive"]["continuation_nats"] != found["re-encode"]["continuation_nats"]
