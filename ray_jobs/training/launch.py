"""Launcher of a staged training run on Ray Train."""

import errno
import math
import os
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from data_prep.loader import Loader
from data_prep.sampling import TRAIN
from infra import storage
from infra.artifact import Output
from infra.config import JobConfig, Resources, as_tree
from infra.errors import UserError
from ray_jobs.training import checkpoint_index
from ray_jobs.training import config as settings
from ray_jobs.training.bad_loss import SKIPPED, STOPPED
from ray_jobs.training.batches import held_out
from ray_jobs.training.capabilities import (
    compile_blocks,
    recompute_activations,
    sequence_sharing,
)
from ray_jobs.training.initial import InitialConfig
from ray_jobs.training.loop import train
from ray_jobs.training.optimizer import matches, parameter_groups
from ray_jobs.training.results import SUMMARY_FILE
from ray_jobs.training.task import Task
from ray_jobs.training.tracked_runs import Tracked
from ray_jobs.training.trackers import check_installed, key_of
from ray_jobs.training.work import Work


def check(
    task: Task,
    stages: tuple[settings.StageConfig, ...],
    run: settings.RunConfig,
    initial: InitialConfig | None,
    resources: Resources,
) -> None:
    """Refuse settings that no run can have; allocates no weights and needs no Ray.

    Raises:
        UserError: batches or workers do not divide, a pattern names no parameter, the model lacks
            what is asked of it, ``initial`` holds another model, or ``run.tracking`` a service
            whose package is missing.
    """
    sharing = run.deepspeed.sequence_parallel
    settings.check_stages(stages, resources.workers, run.min_workers, sharing)
    check_installed(run.tracking)
    if run.min_workers is not None and run.deepspeed.zero_stage:
        raise UserError(
            f"run.min_workers: {run.min_workers}; needs run.deepspeed.zero_stage=0 (it is "
            f"{run.deepspeed.zero_stage}, which shares the optimizer out among the workers)"
        )
    if run.deepspeed.precision == "fp16" and not resources.gpus_per_worker:
        raise UserError(
            "run.deepspeed.precision: fp16; DeepSpeed has it on GPUs only: set "
            "resources.gpus_per_worker=1, or use fp32 or bf16"
        )
    with torch.device("meta"):
        model = task.build()
    names = [name for name, _ in model.named_parameters() if not matches(name, task.frozen)]
    parameter_groups(model, run.optimizer.learning_rate_multiples)
    for stage in stages:
        for key, patterns in (("trainable", stage.trainable), ("fresh", stage.fresh)):
            for pattern in patterns:
                if not any(matches(name, [pattern]) for name in names):
                    raise UserError(
                        f"stage {stage.name}: {key}: {pattern} matches no parameter that can train"
                    )
    if run.recompute_activations and not recompute_activations(model):
        raise UserError("run.recompute_activations: true; this model has no part that can")
    if run.compile_blocks and run.deepspeed.zero_stage == 3:
        raise UserError(
            "run.compile_blocks: true; needs run.deepspeed.zero_stage of 0, 1 or 2 (it is 3, which "
            "fetches weights in the middle of a block)"
        )
    if run.compile_blocks and not compile_blocks(model):
        raise UserError("run.compile_blocks: true; this model has no blocks to compile")
    if sharing > 1 and not sequence_sharing(model):
        raise UserError(
            f"run.deepspeed.sequence_parallel: {sharing}; allowed is 1 (this model has "
            "no sequences to share out)"
        )
    if initial is not None:
        if initial.how == "base" and not task.frozen:
            raise UserError("initial.how: base; this model has no frozen base")
        task.load(model, initial)


def launch(
    task: Task,
    job: JobConfig,
    stages: tuple[settings.StageConfig, ...],
    run: settings.RunConfig,
    output: Output,
    initial: InitialConfig | None = None,
) -> dict[str, Any]:
    """Train `task` through `stages` and return the run's summary.

    Ray Train keeps the checkpoints below ``checkpoints/`` of the output, and goes on from the
    latest whole one, after lost workers as after a lost driver.

    Raises:
        UserError: the cluster cannot give what ``resources`` asks for, a stage draws clips of
            a length that the shards do not have, or the loss became infinite or NaN.
    """
    resources = job.resources
    _check_free(resources, run.min_workers or resources.workers, run.validation_async)
    _check_workers(output, resources.workers, run.deepspeed.zero_stage)
    work = Work(
        task=task,
        stages=stages,
        run=run,
        data=job.input[0],
        output=output.uri,
        initial=initial,
        seed=job.seed,
        threads=run.threads_per_worker or max(1, math.floor(resources.cpus_per_worker)),
        tracked=(
            Tracked(key_of(output.uri), output.uri, as_tree(job))
            if run.tracking != settings.TrackingConfig()
            else None
        ),
    )
    filesystem, path = storage.arrow_filesystem(output.uri)
    trainer = TorchTrainer(
        train,
        train_loop_config={"work": work},
        scaling_config=ScalingConfig(
            num_workers=(
                resources.workers
                if run.min_workers is None
                else (run.min_workers, resources.workers)
            ),
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
            },
        ),
        run_config=RunConfig(
            name=checkpoint_index.FOLDER,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=run.keep_checkpoints),
            failure_config=FailureConfig(max_failures=run.max_failures),
            callbacks=_reporting(),
        ),
    )
    checkpoint_index.drop_unusable_record(output.uri)
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise UserError(
            f"{output.uri}: no space left there or in a worker's temporary folder; free some, "
            "and the same command goes on from the last whole checkpoint"
        ) from None
    _raise_if_stopped(output)
    summary = output.path(SUMMARY_FILE)
    figures = storage.read_json(summary)
    storage.remove(summary)
    storage.remove(output.path(SKIPPED))
    return figures


def _reporting() -> list[UserCallback]:
    """Report validation figures to Ray Tune when the run is one of its trials."""
    try:
        return [_ToTune()]
    except RuntimeError:
        return []


class _ToTune(TuneReportCallback):
    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        if len(metrics[0]) > 1:  # more than the step
            super().after_report(run_context, metrics, None)


def check_data(uri: str, stages: Sequence[settings.StageConfig]) -> None:
    """Refuse shards that lack what a stage trains or is validated on; needs no Ray.

    Raises:
        UserError: names the stage's frames and what there is.
    """
    for stage in stages:
        Loader(uri, TRAIN, stage.data, 1, 1, seed=0)
        held_out(uri, stage, count=1)


def _check_workers(output: Output, workers: int, zero_stage: int) -> None:
    """Refuse another worker count where each rank keeps a part of the optimizer's state."""
    if not zero_stage:
        return
    wrote = checkpoint_index.workers_of_newest(output.uri) or workers
    if wrote != workers:
        raise UserError(
            f"resources.workers {workers}: the checkpoints at {output.uri} are of {wrote} workers, "
            f"and ZeRO {zero_stage} has shared the optimizer out among them; "
            f"set resources.workers={wrote}"
        )


def _raise_if_stopped(output: Output) -> None:
    uri = output.path(STOPPED)
    if storage.exists(uri):
        reason = storage.read_json(uri)["reason"]
        storage.remove(uri)
        raise UserError(
            f"{output.uri}: training stopped: {reason}; the same settings come here again, so "
            "give another output and a lower learning_rate or longer warmup_steps"
        )


def _check_free(
    resources: Resources, workers: int, validation: settings.AsyncValidationConfig | None
) -> None:
    there = ray.cluster_resources()
    for name, each, extra in (
        ("CPU", resources.cpus_per_worker, validation.cpus if validation else 0),
        ("GPU", resources.gpus_per_worker, validation.gpus if validation else 0),
    ):
        wanted = each * workers + extra
        if wanted > there.get(name, 0):
            also = f" plus {extra:g} {name} for asynchronous validation" if extra else ""
            raise UserError(
                f"resources: {workers} workers of {each:g} {name}{also} need {wanted:g}; "
                f"the cluster has {there.get(name, 0):g}"
            )
