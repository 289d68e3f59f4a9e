"""What the autoregressive task does with a sample's prompt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.index import Index
from data_prep.loader import Mix
from data_prep.sample import Sample
from infra import config, storage
from infra.errors import UserError
from models.autoregressive.loong import Vocabulary
from ray_jobs.tasks.autoregressive import ARStageConfig, AutoregressiveTask, NextToken
from ray_jobs.train_autoregressive import TrainAutoregressiveConfig, plan
from tests import shard_artifacts
from tests.models.autoregressive.conftest import CODEC, TINY
from tests.ray_jobs.training import runs


def sample(number: int, text: list[int]) -> Sample:
    ids = np.random.default_rng(number).integers(TINY.vocabulary.video, size=(2, 2, 2))
    prompt, seed = np.array(text, np.int32), 1_000_003 * number
    return Sample(ids, prompt, (5, 2, 2), seed, f"c{number}", None, 12.0, 0)


def stage(prompt_dropout: float) -> ARStageConfig:
    return ARStageConfig(
        name="one",
        steps=1,
        batch_size=4,
        data=(Mix(frames=5),),
        learning_rate=1e-3,
        prompt_dropout=prompt_dropout,
    )


@pytest.fixture(scope="module")
def task() -> AutoregressiveTask:
    return AutoregressiveTask(TINY, 1, CODEC)


@pytest.fixture(scope="module")
def model(task: AutoregressiveTask) -> NextToken:
    torch.manual_seed(0)
    return task.build()


def losses(task: AutoregressiveTask, model: NextToken, share: float, text: list[int]) -> list:
    """Return the loss of 100 samples, each alone."""
    with torch.no_grad():
        return [
            float(task.loss(model, [sample(number, text)], stage(share)).loss)
            for number in range(100)
        ]


def test_the_share_stated_trains_with_an_empty_prompt(task: AutoregressiveTask, model: NextToken):
    whole, empty = (losses(task, model, 0, text) for text in ([7, 8, 9], []))
    assert not set(whole) & set(empty)
    mixed = losses(task, model, 0.3, [7, 8, 9])
    left_out = [loss == other for loss, other in zip(mixed, empty, strict=True)]
    assert 15 <= sum(left_out) <= 45
    for loss, other, is_out in zip(mixed, whole, left_out, strict=True):
        assert is_out or loss == other
    assert losses(task, model, 1, [7, 8, 9]) == empty


def test_a_sample_loses_its_prompt_whatever_it_is_batched_with(
    task: AutoregressiveTask, model: NextToken
):
    samples = [sample(number, [7, 8, 9]) for number in range(40)]
    alone = losses(task, model, 0.3, [7, 8, 9])[:40]
    with torch.no_grad():
        for first in range(0, 40, 8):
            part = slice(first, first + 8)
            together = float(task.loss(model, samples[part], stage(0.3)).loss)
            assert together == pytest.approx(np.mean(alone[part]), rel=1e-5)


def test_validation_leaves_no_prompt_out(task: AutoregressiveTask, model: NextToken):
    samples = [sample(number, [7, 8, 9]) for number in range(8)]
    with torch.no_grad():
        judged = task.validate(model, samples, stage(1)).figures
    assert judged["loss"] == pytest.approx(np.mean(losses(task, model, 0, [7, 8, 9])[:8]), rel=1e-5)


@torch.no_grad()
def test_a_stage_says_how_tokens_add_up_and_which_clips_are_weighted(
    task: AutoregressiveTask, model: NextToken
):
    samples = [sample(number, [7]) for number in range(4)]  # 2 latent frames of 4 tokens

    def loss(task: AutoregressiveTask, **changes: Any) -> float:
        settings = stage(0).model_copy(update={"early_frame_weight": 1.0, **changes})
        return float(task.loss(model, samples, settings).loss)

    all_early = AutoregressiveTask(TINY, 5, CODEC)
    plain = loss(task, early_frame_weight=0.0)
    assert loss(task, loss_reduction="sum") == pytest.approx(8 * loss(task))
    assert loss(task, early_frame_weight_of="longer") == loss(task) > plain
    assert loss(all_early) == pytest.approx(2 * plain)
    assert loss(all_early, early_frame_weight_of="longer") == pytest.approx(plain)


def planned(tokens: str, vocabulary: Vocabulary | None = None, **keys: Any) -> list[str]:
    model = TINY.model_copy(
        update={"vocabulary": vocabulary or Vocabulary(text=20, video=runs.CODES)}
    )
    tree = {
        "input": [tokens], "output": "/unused", "model": model.model_dump(),
        "stages": [{"name": "a", "steps": 1, "batch_size": 4, "data": [{"frames": 5}]}], **keys,
    }  # fmt: skip
    return plan(config.build(TrainAutoregressiveConfig, tree))


@pytest.mark.parametrize(("ids", "fits"), [(19, True), (20, True), (21, False)])
def test_the_text_encoder_has_no_ids_beyond_the_vocabulary(ids: int, fits: bool, tmp_path: Path):
    tokens = runs.write_data(tmp_path)["tokens"]
    file = f"{tokens}/summary.json"
    storage.write_json(file, {**storage.read_map(file), "text_ids": ids})
    if fits:
        assert planned(tokens)
        return
    with pytest.raises(UserError, match=r"vocabulary.text: 20; .* has 21 ids, so 21 or more"):
        planned(tokens)


@pytest.mark.parametrize("key", ["fps", "text", "codec_fingerprint"])
def test_what_generation_needs_is_asked_for_before_training(key: str, tmp_path: Path):
    tokens = runs.write_data(tmp_path)["tokens"]
    file = f"{tokens}/summary.json"
    storage.write_json(file, {k: v for k, v in storage.read_map(file).items() if k != key})
    with pytest.raises(UserError, match=rf"summary\.json: {key} is None; expected"):
        planned(tokens)


def test_embeddings_are_refused(tmp_path: Path):
    text = {"kind": "t5", "fingerprint": "t", "dtype": "float16", "dim": 8}
    spec = shard_artifacts.tokens_spec(runs.CODES, text=text)
    codes = np.zeros((2, 2, 2), np.uint8)
    rows = [
        shard_artifacts.row(f"c{n}", [shard_artifacts.window(codes, 5)], split=split)
        for n, split in enumerate(("train", "train", "train", "train", "validation"))
    ]
    tokens = shard_artifacts.write(tmp_path, spec, [rows], summary={"codebook_size": runs.CODES})
    with pytest.raises(UserError, match="its texts are no ids, which this model reads"):
        planned(tokens)


@pytest.mark.parametrize("key", ["text_fingerprint", "tokenizer_fingerprint"])
def test_initial_weights_know_the_ids_that_they_are_trained_on(key: str, tmp_path: Path):
    tokens = runs.write_data(tmp_path)["tokens"]
    spec = Index(tokens).spec
    assert spec.text is not None
    task = AutoregressiveTask(
        TINY.model_copy(update={"vocabulary": Vocabulary(text=20, video=runs.CODES)}), 1, CODEC
    )
    weights = tmp_path / "weights"
    task.export(task.build().state_dict(), str(weights))
    initial = {"from": str(weights)}
    assert planned(tokens, initial=initial)  # nothing says what they were trained on
    learnt = {
        "text_fingerprint": spec.text["fingerprint"],
        "tokenizer_fingerprint": spec.codec_fingerprint,
    }
    storage.write_json(str(weights / "summary.json"), learnt)
    assert planned(tokens, initial=initial)
    storage.write_json(str(weights / "summary.json"), {**learnt, key: "0" * 16})
    with pytest.raises(UserError, match=r"initial.from: .* was trained with .* 0{16}, and"):
        planned(tokens, initial=initial)


@pytest.mark.parametrize("video", [runs.CODES - 1, runs.CODES, runs.CODES + 1])
def test_the_codebook_is_that_of_the_tokens(video: int, tmp_path: Path):
    tokens = runs.write_data(tmp_path)["tokens"]
    vocabulary = Vocabulary(text=20, video=video)
    if video == runs.CODES:
        assert "train on" in planned(tokens, vocabulary)[0]
        return
    with pytest.raises(UserError, match=f"video: {video}; .* so {runs.CODES} is allowed"):
        planned(tokens, vocabulary)
