"""Every ZeRO stage trains the same, and goes on from a checkpoint to the bit (two ranks, gloo).

Without Ray, which has no part in it; `tests/faults/test_training.py` proves the same through
Ray Train, with workers killed.
"""

import contextlib
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as spawning
from safetensors.torch import load_file, save_file

from data_prep.loader import Loader, Mix
from ray_jobs.training import batches, checkpoints, zero
from ray_jobs.training.config import DeepSpeedConfig, RunConfig
from ray_jobs.training.loop import Place, Work, _Engine, _Run
from tests.ray_jobs.training import runs

pytestmark = pytest.mark.timeout(600)
RANKS = 2
STEPS, SAVED_AT = 4, 2
ZERO = {
    "0": {}, "1": {"zero_stage": 1}, "2": {"zero_stage": 2}, "3": {"zero_stage": 3},
    "2-offload": {"zero_stage": 2, "offload_optimizer": True},
    "3-offload": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
    "1-bf16": {"zero_stage": 1, "precision": "bf16"},
    "2-bf16": {"zero_stage": 2, "precision": "bf16"},
    "3-bf16": {"zero_stage": 3, "precision": "bf16"},
}  # fmt: skip


def cases() -> list[tuple[str, str]]:
    return [
        (kind, name)
        for kind, made in runs.KINDS.items()
        for name, settings in ZERO.items()
        if (made.low_precision or "precision" not in settings)
        and settings.get("zero_stage", 0) <= made.most_zero
    ]


class Trial:
    """Some steps of one kind of model under one way of sharing it out."""

    def __init__(
        self, kind: str, settings: dict[str, Any], data: dict[str, str], rank: int
    ) -> None:
        made = runs.KINDS[kind]
        self.rank = rank
        self.stage = made.stage(
            name="a", steps=STEPS, batch_size=4, data=(Mix(frames=5),), learning_rate=1e-3,
            micro_batch_size=1 if made.micro_batch_size else None,
        )  # fmt: skip
        run = RunConfig(ema_decay=0.5, deepspeed=DeepSpeedConfig(**settings))
        self.work = Work(made.task(), (self.stage,), run, data[made.data], "", 0, 1)
        self.loader = Loader(data[made.data], "train", self.stage.data, STEPS, 4, 0)

    def begin(self, checkpoint: str | None = None) -> tuple[_Run, _Engine]:
        place = checkpoints.read_place(checkpoint) if checkpoint else Place()
        run = _Run(self.work, self.rank, RANKS, place, {})
        run.telemetry = None
        engine = run._engine(run._model(self.stage, None, checkpoint), self.stage)
        if checkpoint:
            checkpoints.restore(engine.deepspeed, engine.ema, checkpoint, self.rank)
        engine.module.train()
        return run, engine

    def steps(self, run: _Run, engine: _Engine, until: int) -> list[float]:
        losses = []
        while run.place.step < until:
            samples = batches.batch(self.loader, run.place.step, self.rank, RANKS)
            losses.append(run._step(engine, self.stage, samples)[0])
            run.place.step += 1
            run.place.stage_step += 1
        return losses


def states(engine: _Engine) -> dict[str, torch.Tensor]:
    assert engine.ema is not None
    with engine.ema.in_place():
        average = zero.full_state(engine.deepspeed)
    whole = zero.full_state(engine.deepspeed)
    return {**whole, **{f"ema.{name}": tensor for name, tensor in average.items()}}


def work_of_rank(rank: int, port: int, data: dict[str, str], folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
        WORLD_SIZE=str(RANKS),
    )  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for kind, name in cases():
        trial = Trial(kind, ZERO[name], data, rank)
        run, engine = trial.begin()
        losses = trial.steps(run, engine, SAVED_AT)
        saved = f"{folder}/{kind}-{name}"
        checkpoints.save(engine.deepspeed, engine.ema, run.place, f"{saved}-{rank}", rank)
        dist.barrier()
        if rank == 0:  # as Ray Train does with what each rank reports
            for each in range(RANKS):
                shutil.copytree(f"{saved}-{each}", saved, dirs_exist_ok=True)
        dist.barrier()
        losses += trial.steps(run, engine, STEPS)
        straight = states(engine)
        if kind == "adversarial":  # it has not stood aside
            assert straight["discriminator.averaged"] > 0
        with torch.no_grad(), zero.own_writers_whole(engine.module.eval()):
            trial.work.task.validate(engine.module, batches.batch(trial.loader, 0, 0, 1))
        engine.deepspeed.destroy()
        run, engine = trial.begin(saved)
        again = trial.steps(run, engine, STEPS)
        resumed = states(engine)
        engine.deepspeed.destroy()
        if rank == 0:
            save_file({k: v.contiguous() for k, v in straight.items()}, saved + "-straight")
            save_file({k: v.contiguous() for k, v in resumed.items()}, saved + "-resumed")
            Path(saved + ".json").write_text(json.dumps([losses, again]))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawning.spawn(work_of_rank, (port, runs.write_data(folder), str(folder)), nprocs=RANKS)
    return folder


@pytest.mark.parametrize(("kind", "name"), cases())
def test_resumes_to_the_bit(trained: Path, kind: str, name: str) -> None:
    losses, again = json.loads((trained / f"{kind}-{name}.json").read_text())
    assert losses[SAVED_AT:] == again
    straight = load_file(trained / f"{kind}-{name}-straight")
    resumed = load_file(trained / f"{kind}-{name}-resumed")
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key


@pytest.mark.parametrize(("kind", "name"), [c for c in cases() if "bf16" not in c[1]])
def test_every_stage_trains_the_same(trained: Path, kind: str, name: str) -> None:
    expected = load_file(trained / f"{kind}-0-straight")
    found = load_file(trained / f"{kind}-{name}-straight")
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize("kind", ["autoregressive", "dit"])
def test_bf16_is_near_and_its_master_weights_are_not_rounded(trained: Path, kind: str) -> None:
    expected, _ = json.loads((trained / f"{kind}-0.json").read_text())
    for name in ("1-bf16", "2-bf16", "3-bf16"):
        found, _ = json.loads((trained / f"{kind}-{name}.json").read_text())
        assert found == pytest.approx(expected, rel=5e-3)
        weights = load_file(trained / f"{kind}-{name}-straight")
        assert any(not torch.equal(w, w.bfloat16().float()) for w in weights.values())


@pytest.mark.parametrize("kind", runs.KINDS)
def test_the_average_follows_the_weights(trained: Path, kind: str) -> None:
    state = load_file(trained / f"{kind}-0-straight")
    names = [name for name in state if not name.startswith("ema.")]
    assert any(not torch.equal(state[name], state[f"ema.{name}"]) for name in names)
