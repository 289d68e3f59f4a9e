"""Training job of the autoregressive model on token shards (Loong, sections 3.1, 3.2 and 4.1).

input: a finished artifact of kind `tokens`. output: the trained model (`model.safetensors`,
`config.json`), `metrics.jsonl`, TensorBoard events and checkpoints.
"""

from typing import Annotated, Any

from pydantic import Field

from data_prep.index import Index
from data_prep.loader import Loader
from data_prep.sampling import TRAIN
from infra import artifact, storage
from infra import config as configs
from infra.artifact import Output
from infra.errors import UserError
from infra.job import Job, main
from models.autoregressive.loong.config import ARConfig
from models.autoregressive.loong.sequence import SPECIALS_PER_SEQUENCE
from models.codec import CodecSpec
from ray_jobs.tasks.autoregressive import ARStageConfig, AutoregressiveTask
from ray_jobs.training import job
from ray_jobs.training.job import TrainConfig


class TrainAutoregressiveConfig(TrainConfig[ARStageConfig]):
    """Settings of `train_autoregressive`.

    In the paper its stages are images, then images and 17 frames, then 65 frames.
    """

    model: ARConfig = ARConfig()
    early_frames: Annotated[int, Field(ge=1)] = 17
    """Frames whose tokens are the first K of Eq. 2."""


def plan(config: TrainAutoregressiveConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    sharing = config.run.deepspeed.sequence_parallel
    if config.model.heads % sharing:
        raise UserError(
            f"run.deepspeed.sequence_parallel: {sharing}; allowed is a divisor of model.heads "
            f"{config.model.heads}"
        )
    job.check_job(_task(config), config)
    info = job.check_input(config, "tokens")
    codes = info.counts.get("codebook_size", 0)
    if codes != config.model.vocabulary.video:
        raise UserError(
            f"model.vocabulary.video: {config.model.vocabulary.video}; the tokens of "
            f"{config.input[0]} have {codes} codes, so {codes} is allowed"
        )
    _facts(config.input[0])
    _check_text(config)
    _check_initial(config)
    _check_length(config)
    return [
        f"train on {info.counts.get('tokens', 0)} tokens of {config.input[0]}",
        *job.initial_lines(config.initial),
        *job.plan_lines(config.stages, _of_stage),
    ]


def _of_stage(stage: ARStageConfig) -> str:
    empty = f", {stage.prompt_dropout:.0%} without prompt" if stage.prompt_dropout else ""
    weighted = " on longer clips" if stage.early_frame_weight_of == "longer" else ""
    summed = ", tokens summed" if stage.loss_reduction == "sum" else ""
    return f", λ {stage.early_frame_weight:g}{weighted}{summed}{empty}"


def _check_text(config: TrainAutoregressiveConfig) -> None:
    """Refuse texts that are no ids of the model's vocabulary."""
    tokens, known = config.input[0], config.model.vocabulary.text
    spec, ids = Index(tokens).spec.text, artifact.summary(tokens).get("text_ids")
    if spec is None or spec.get("dim") is not None:
        raise UserError(f"input {tokens}: its texts are no ids, which this model reads")
    if isinstance(ids, int) and ids > known:
        raise UserError(
            f"model.vocabulary.text: {known}; the text encoder of {tokens} has {ids} ids, so "
            f"{ids} or more is allowed"
        )


def _check_initial(config: TrainAutoregressiveConfig) -> None:
    """Refuse weights that learnt other ids: of another text encoder, or of another codec."""
    if config.initial is None:
        return
    file = storage.join(config.initial.uri, artifact.SUMMARY)
    learnt = storage.read_map(file) if storage.exists(file) else {}
    spec = Index(config.input[0]).spec
    for key, what, here in (
        ("text_fingerprint", "text encoder", (spec.text or {}).get("fingerprint")),
        ("tokenizer_fingerprint", "tokenizer", spec.codec_fingerprint),
    ):
        if learnt.get(key, here) != here:
            raise UserError(
                f"initial.from: {config.initial.uri} was trained with {what} {learnt[key]}, and "
                f"{config.input[0]} is of {here}: the same ids mean other things"
            )


def _check_length(config: TrainAutoregressiveConfig) -> None:
    around = config.model.max_text_tokens + SPECIALS_PER_SEQUENCE
    codec = codec_of(config.input[0])
    for stage in config.stages:
        loader = Loader(config.input[0], TRAIN, stage.data, steps=1, batch_size=1, seed=0)
        for frames, height, width in loader.shapes:
            longest = codec.latents_of_frames(frames) * height * width + around
            if longest > config.model.max_positions:
                raise UserError(
                    f"model.max_positions: {config.model.max_positions}; stage {stage.name} has "
                    f"sequences of up to {longest} tokens ({frames} frames)"
                )


def _task(config: TrainAutoregressiveConfig) -> AutoregressiveTask:
    codec = codec_of(config.input[0])
    try:
        return AutoregressiveTask(config.model, config.early_frames, codec)
    except ValueError as error:
        raise UserError(f"early_frames: {error}") from None


def codec_of(tokens: str) -> CodecSpec:
    """Return the spec of the codec that made the tokens of an artifact."""
    codec = Index(tokens).spec.codec
    assert codec is not None, "tokens have a codec"
    return configs.build(CodecSpec, codec)


def run(config: TrainAutoregressiveConfig, output: Output) -> dict[str, Any]:
    """Train and return the summary."""
    facts = _facts(config.input[0])
    return {
        **job.train(_task(config), config, output),
        **facts,
        "trained_frames": max(mix.frames for stage in config.stages for mix in stage.data),
    }


def _facts(tokens: str) -> dict[str, Any]:
    """Return what generation has to know of the tokens that a model was trained on.

    Raises:
        UserError: their summary lacks it.
    """
    summary = artifact.summary(tokens, fps=float, text=dict, codec_fingerprint=str)
    text = Index(tokens).spec.text or {}
    return {
        "fps": summary["fps"],
        "text": summary["text"],
        "text_fingerprint": text.get("fingerprint"),
        "tokenizer_fingerprint": summary["codec_fingerprint"],
    }


JOB = Job("train_autoregressive", "autoregressive", TrainAutoregressiveConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
