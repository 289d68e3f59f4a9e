"""What is refused before any worker starts, and before Ray."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from data_prep.loader import Mix
from infra.config import Resources, build
from infra.errors import UserError
from models import exports
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.vocabulary import Vocabulary
from models.tokenizer import CVQConfig, TokenizerConfig
from ray_jobs.tasks.autoregressive import AutoregressiveTask
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.train_autoregressive import TrainAutoregressiveConfig, plan
from ray_jobs.training.config import DeepSpeedConfig, RunConfig, StageConfig, deepspeed_dict
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.launch import check
from ray_jobs.training.task import Task
from tests.ray_jobs.training import runs

SMALL = TokenizerConfig(channels=8, channel_multipliers=(1, 1, 1, 1), res_blocks=(0, 0, 0, 0),
                        middle_blocks=0, groups=4, codebook=CVQConfig(size=4, dim=2))  # fmt: skip
LLAMA = ARConfig(vocabulary=Vocabulary(text=20, video=8), hidden=16, intermediate=16, layers=1,
                 heads=2, max_positions=64)  # fmt: skip
TASK = TokenizerTask(SMALL)


def refuse(
    match: str,
    task: Task = TASK,
    workers: int = 1,
    batch_size: int = 4,
    run: dict | None = None,
    initial: InitialConfig | None = None,
    **stage,
) -> None:
    stages = (
        StageConfig(name="a", steps=1, batch_size=batch_size, data=(Mix(frames=1),), **stage),
    )
    with pytest.raises(UserError, match=match):
        check(task, stages, RunConfig(**(run or {})), initial, Resources(workers=workers))


def test_batches_that_do_not_divide() -> None:
    refuse("batch_size 4 does not divide over 3 workers", workers=3)
    refuse("4 samples a worker do not divide into micro-batches of 3", micro_batch_size=3)
    elastic = {"min_workers": 2}
    refuse("batch_size 4 does not divide over 3 workers", workers=4, run=elastic)


def test_elastic_workers_with_a_shared_optimizer() -> None:
    run = {"min_workers": 1, "deepspeed": DeepSpeedConfig(zero_stage=2)}
    refuse(r"min_workers: 1; needs run.deepspeed.zero_stage=0 \(it is 2", workers=2, run=run)


def test_patterns_that_name_nothing() -> None:
    refuse(
        r"stage a: trainable: decodr\.\* matches no parameter",
        trainable=("decodr.*",),
    )
    refuse("stage a: fresh: nothing matches no parameter", fresh=("nothing",))


def test_recomputing_where_nothing_can() -> None:
    run = {"recompute_activations": True}
    refuse("recompute_activations: true; this model has no part", runs.DiTTask(), run=run)


def shared(ranks: int, **run) -> dict:
    return {"deepspeed": DeepSpeedConfig(sequence_parallel=ranks), **run}


def test_workers_that_do_not_divide_into_groups() -> None:
    llama = AutoregressiveTask(LLAMA, 17, runs.CODEC)
    refuse("sequence_parallel: 2; allowed is a divisor of resources.workers 3$", llama,
           workers=3, run=shared(2))  # fmt: skip
    refuse("a divisor of resources.workers 4, and run.min_workers 2 lets a run have 3", llama,
           workers=4, run=shared(2, min_workers=2))  # fmt: skip
    refuse("batch_size 4 does not divide over 3 groups of 2 workers", llama,
           workers=6, run=shared(2))  # fmt: skip
    refuse("2 samples a group do not divide into micro-batches of 4", llama,
           workers=4, run=shared(2), micro_batch_size=4)  # fmt: skip


@pytest.mark.parametrize("task", [TASK, runs.DiTTask()])
def test_models_without_sequences_to_share(task: Task) -> None:
    refuse(
        r"sequence_parallel: 2; allowed is 1 \(this model has no", task, workers=2, run=shared(2)
    )


def test_what_divides_over_groups_need_not_divide_over_workers() -> None:
    stage = StageConfig(name="a", steps=1, batch_size=2, data=(Mix(frames=1),))
    run = RunConfig(**shared(2))
    check(AutoregressiveTask(LLAMA, 17, runs.CODEC), (stage,), run, None, Resources(workers=4))
    made = deepspeed_dict(run, stage, workers=4)
    assert made["train_micro_batch_size_per_gpu"] == made["gradient_accumulation_steps"] == 1


def test_heads_that_do_not_divide() -> None:
    stage = {"name": "a", "steps": 1, "batch_size": 4, "data": [{"frames": 1}]}
    tree = {
        "input": ["in"], "output": "out", "model": LLAMA.model_dump(), "stages": [stage],
        "resources": {"workers": 4}, "run": {"deepspeed": {"sequence_parallel": 4}},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"sequence_parallel: 4; .* a divisor of model.heads 2"):
        plan(build(TrainAutoregressiveConfig, tree))


def test_compiling_where_it_does_not_hold() -> None:
    run = {"compile_blocks": True}
    refuse("run.compile_blocks: true; this model has no blocks to compile", run=run)
    zero_3 = {**run, "deepspeed": DeepSpeedConfig(zero_stage=3)}
    refuse("run.compile_blocks: true; needs run.deepspeed.zero_stage of 0, 1 or 2", run=zero_3)


def test_fp16_without_gpus() -> None:
    run = {"deepspeed": DeepSpeedConfig(zero_stage=1, precision="fp16")}
    refuse("precision: fp16; DeepSpeed has it on GPUs only", run=run)


@pytest.mark.parametrize("settings", [{"offload_optimizer": True}, {"precision": "bf16"},
                                      {"offload_parameters": True, "zero_stage": 2}])  # fmt: skip
def test_what_needs_a_zero_stage(settings: dict) -> None:
    with pytest.raises(ValidationError, match=r"needs zero_stage .*; it is"):
        DeepSpeedConfig(**settings)


def test_an_initial_checkpoint_of_another_model(tmp_path: Path) -> None:
    exports.save(TASK.build(), tmp_path / "tokenizer")
    here = InitialConfig.model_validate({"from": str(tmp_path / "tokenizer")})
    refuse("holds a model of kind video_tokenizer; allowed is loong_decoder",
           AutoregressiveTask(LLAMA, 17, runs.CODEC), initial=here)  # fmt: skip
    wider = SMALL.model_copy(update={"channels": 16})
    refuse(r"model.safetensors does not fit: misshaped", TokenizerTask(wider), initial=here)
    refuse("not found", initial=InitialConfig.model_validate({"from": str(tmp_path / "nowhere")}))
    check(TASK, (), RunConfig(), here, Resources())


def test_a_model_starts_from_an_initial_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(1)
    exported = TASK.build()
    TASK.export(exported.state_dict(), str(tmp_path))
    torch.manual_seed(2)
    model = TASK.build()
    TASK.load(model, InitialConfig.model_validate({"from": str(tmp_path)}))
    for name, tensor in exported.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
