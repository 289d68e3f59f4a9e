"""The engine on Ray Train and DeepSpeed: resume = straight run, two workers = one worker."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra import artifact
from infra.config import Resources, build
from infra.errors import UserError
from infra.job import execute
from models import exports, weights
from ray_jobs import train_tokenizer
from ray_jobs.training import launch as launching
from ray_jobs.training.config import BadLossConfig
from ray_jobs.training.loop import train
from ray_jobs.training.work import Work
from tests import shard_artifacts
from tests.ray_jobs.training import runs
from tests.ray_jobs.training.test_trackers import history
from tests.shard_artifacts import row, window

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixteen clips of moving gradients, as pixel shards."""
    folder = tmp_path_factory.mktemp("pixels")
    y, x = np.mgrid[0:16, 0:16]
    rows = []
    for clip in range(16):
        t = np.arange(9)[:, None, None]
        red = (x * (clip % 5 + 1) * 3 + t * 9) % 256
        green = (y * 11 + clip * 15 + t) % 256
        blue = np.full_like(red, 16 * clip)
        data = np.stack([red, np.broadcast_to(green, red.shape), blue], -1).astype(np.uint8)
        split = "validation" if clip % 8 == 7 else "train"
        rows.append(row(f"c{clip}", [window(data, 9)], caption=None, fps=8.0, split=split))
    return shard_artifacts.write(folder, shard_artifacts.FRAMES, [rows], summary={"clips": 16})


def settings(
    pixels: str, output: Path, workers: int = 1, steps: int = 3, **run: Any
) -> train_tokenizer.TrainTokenizerConfig:
    tree = {
        "input": [pixels],
        "output": str(output),
        "resources": {"workers": workers},
        "model": {
            "height_px": 16, "width_px": 16, "channels": 8, "channel_multipliers": [1, 1, 1, 1],
            "res_blocks": [0, 0, 1, 1], "middle_blocks": 0, "groups": 4,
            "codebook": {"size": 16, "dim": 4},
        },
        "stages": [
            {"name": "images", "steps": steps, "batch_size": 4, "data": [{"frames": 1}],
             "learning_rate": 1e-3},
            {"name": "short", "steps": steps, "batch_size": 4, "data": [{"frames": 5}],
             "learning_rate": 1e-3},
        ],
        "run": {"log_every_steps": 1, "checkpoint_every_steps": 2, "max_failures": 0,
                "keep_checkpoints": 10, **run},
    }  # fmt: skip
    return build(train_tokenizer.TrainTokenizerConfig, tree)


def losses(output: Path) -> list[tuple[int, float]]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r["loss"]) for r in records if r["split"] == "train"]


@pytest.fixture(scope="module")
def straight(ray_session: None, pixels: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("straight") / "out"
    execute(train_tokenizer.JOB, settings(pixels, output))
    return output


def stop_at_step_5(settings_: dict) -> None:
    """Train like the real loop, but fail as a killed worker would, in the second stage."""
    from ray_jobs.training import loop

    class Killed(loop.Run):
        def _step(self, *args, **named):
            if self.train_state.step == 5:
                raise SystemError("killed here")
            return super()._step(*args, **named)

    loop.Run = Killed
    train(settings_)


def nan_at_step_3_on_one_rank(settings_: dict) -> None:
    from ray_jobs.training import loop

    class Diverging(loop.Run):
        def _step(self, *args, **named):
            loss, metrics, units = super()._step(*args, **named)
            bad = self.rank == 1 and self.train_state.step == 3
            return (float("nan") if bad else loss), metrics, units

    loop.Run = Diverging
    train(settings_)


def tracking(folder: Path) -> dict[str, Any]:
    return {"mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"}}


@pytest.fixture(scope="module")
def killed(straight: Path, pixels: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended in step 5 of 6, with checkpoints of steps 2, 3 and 5."""
    output = tmp_path_factory.mktemp("killed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "train", stop_at_step_5)
        with pytest.raises(Exception, match="killed here"):
            execute(train_tokenizer.JOB, settings(pixels, output, tracking=tracking(output.parent)))
    assert not (output / artifact.MARKER).exists()
    return output


def assert_same(output: Path, straight: Path) -> None:
    assert losses(output) == losses(straight)
    ours, theirs = weights.load_state(output), weights.load_state(straight)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_close(output: Path, straight: Path) -> None:
    ours, theirs = np.array(losses(output)), np.array(losses(straight))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    codebook = "quantizer.codebook"
    torch.testing.assert_close(
        weights.load_state(output)[codebook],
        weights.load_state(straight)[codebook],
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_killed_run_goes_on_to_the_bit(straight: Path, killed: Path, pixels: str, tmp_path: Path):
    output = Path(shutil.copytree(killed, tmp_path / "out"))
    execute(train_tokenizer.JOB, settings(pixels, output, tracking=tracking(killed.parent)))
    assert_same(output, straight)
    run, metrics = history(killed.parent)
    assert run.info.status == "FINISHED"
    assert metrics["train/loss"] == losses(straight)
    assert [step for step, _ in metrics["validation/psnr_db"]] == [3, 6]
    assert run.data.params["stages.1.learning_rate"] == "0.001"


def test_asynchronous_validation_gives_the_same_figures(
    straight: Path, pixels: str, tmp_path: Path
):
    asynchronous = settings(pixels, tmp_path / "out", validation_async={"cpus": 1})
    execute(train_tokenizer.JOB, asynchronous)
    lines = runs.log(straight)
    assert [line["step"] for line in lines if line["split"] == "validation"] == [3, 6]
    runs.assert_same_log(tmp_path / "out", straight)


@pytest.mark.parametrize("asynchronous", [None, {"cpus": 1}])
def test_the_average_is_the_model_and_is_judged(
    straight: Path, pixels: str, tmp_path: Path, asynchronous: dict[str, Any] | None
):
    output = tmp_path / "out"
    averaged = settings(pixels, output, ema_decay=0.5, validation_async=asynchronous)
    execute(train_tokenizer.JOB, averaged)
    trained, last = weights.load_state(straight), weights.load_state(output / "last")
    average = weights.load_state(output)
    assert all(torch.equal(last[name], tensor) for name, tensor in trained.items())
    assert any(not torch.equal(average[name], tensor) for name, tensor in trained.items())
    judged = json.loads((output / "summary.json").read_text())["validation"]
    before = json.loads((straight / "summary.json").read_text())["validation"]
    assert judged.keys() == before.keys()
    assert judged["psnr_db"] != before["psnr_db"]


@pytest.mark.faults
def test_a_damaged_checkpoint_is_passed_over(
    straight: Path, killed: Path, pixels: str, tmp_path: Path
):
    output = Path(shutil.copytree(killed, tmp_path / "out"))
    newest = sorted(output.glob("checkpoints/*/state/*.pt"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    execute(train_tokenizer.JOB, settings(pixels, output))
    assert_same(output, straight)


@pytest.mark.faults
def test_a_run_goes_on_with_another_number_of_workers(
    straight: Path, killed: Path, pixels: str, tmp_path: Path
):
    output = Path(shutil.copytree(killed, tmp_path / "out"))
    execute(train_tokenizer.JOB, settings(pixels, output, workers=2))
    assert_close(output, straight)


@pytest.mark.faults
def test_a_loss_that_is_not_finite_stops_all_ranks(
    ray_session: None, pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(launching, "train", nan_at_step_3_on_one_rank)
    with pytest.raises(
        UserError, match=r"stopped: the loss of step 4 \(stage short\) is not finite"
    ):
        execute(train_tokenizer.JOB, settings(pixels, tmp_path / "out", workers=2))
    assert not (tmp_path / "out" / "model.safetensors").exists()
    steps = [
        json.loads(file.read_text())["step"]
        for file in (tmp_path / "out").glob("checkpoints/*/train_state.json")
    ]
    assert sorted(steps) == [2, 3]


@pytest.mark.faults
def test_a_bad_step_is_passed_over_by_policy(
    ray_session: None, pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(launching, "train", nan_at_step_3_on_one_rank)
    config = settings(pixels, tmp_path / "out", workers=2)
    run = config.run.model_copy(update={"bad_loss": BadLossConfig(policy="skip")})
    summary = execute(train_tokenizer.JOB, config.model_copy(update={"run": run}))
    assert (summary["steps"], summary["skipped_steps"]) == (6, 1)
    assert [step for step, _ in losses(tmp_path / "out")] == [1, 2, 3, 5, 6]
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    (skipped,) = [r for r in map(json.loads, lines) if r["split"] == "skipped"]
    assert skipped["step"] == 4
    assert "the loss of step 4 (stage short) is not finite" in skipped["reason"]
    assert not (tmp_path / "out" / "skipped.json").exists()


@pytest.mark.faults
def test_two_workers_equal_one(straight: Path, pixels: str, tmp_path: Path):
    output = tmp_path / "out"
    execute(train_tokenizer.JOB, settings(pixels, output, workers=2))
    assert_close(output, straight)


def test_the_export_loads_and_work_is_plain_data(straight: Path):
    model = exports.load_codec(str(straight), torch.device("cpu"))
    ids = model.encode(torch.zeros(1, 3, 5, 16, 16))
    assert ids.shape == (1, 2, 2, 2)
    assert Work.__dataclass_params__.frozen  # pyright: ignore


def test_wrong_settings_fail_before_any_worker(ray_session: None, pixels: str, tmp_path: Path):
    many = settings(pixels, tmp_path / "a").model_copy(
        update={"resources": Resources(workers=4, cpus_per_worker=64)}
    )
    with pytest.raises(UserError, match=r"4 workers of 64 CPU need 256; the cluster has"):
        execute(train_tokenizer.JOB, many)
    with pytest.raises(UserError, match="batch_size 4 does not divide over 3 workers"):
        execute(train_tokenizer.JOB, settings(pixels, tmp_path / "b", workers=3))
    assert not (tmp_path / "b").exists()
