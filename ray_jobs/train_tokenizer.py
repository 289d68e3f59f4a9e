"""Training job of the video tokenizer on frames (Loong, section 3.1 and 4.1).

input: a finished artifact of kind `frames`. output: the trained tokenizer (`model.safetensors`,
`config.json`), `metrics.jsonl`, TensorBoard events, pictures and checkpoints.
"""

from typing import Any, ClassVar

from infra import artifact, storage
from infra.artifact import Output
from infra.errors import UserError
from infra.job import Job, main
from models.tokenizer.config import TokenizerConfig
from models.tokenizer.model import parameter_count
from ray_jobs.tasks.tokenizer import TokenizerTask
from ray_jobs.training import job
from ray_jobs.training.config import StageConfig
from ray_jobs.training.job import TrainConfig


class TrainTokenizerConfig(TrainConfig[StageConfig]):
    """Settings of `train_tokenizer`; in the paper stages of 1, then 17, then 65 frames."""

    input_keys: ClassVar[tuple[str, ...]] = (*TrainConfig.input_keys, "model.perceptual.weights")

    model: TokenizerConfig = TokenizerConfig()


def plan(config: TrainTokenizerConfig) -> list[str]:
    """Return what a run would do; see :class:`infra.job.Job`."""
    job.check_job(TokenizerTask(config.model), config)
    settings = config.run.deepspeed
    if settings.precision != "fp32":
        raise UserError(
            f"run.deepspeed.precision: {settings.precision}; allowed is fp32 (the codebook is "
            "moved by steps that lower precisions lose)"
        )
    if config.model.adversarial is not None and settings.zero_stage == 3:
        raise UserError(
            "run.deepspeed.zero_stage: 3; with model.adversarial allowed are 0, 1 and 2 (the "
            "tokenizer is judged by copies of the discriminator's weights, which ZeRO 3 shares out)"
        )
    info = job.check_input(config, "frames")
    _check_initial(config)
    return [
        f"train a tokenizer on {info.counts.get('clips', 0)} clips of {config.input[0]}",
        *job.initial_lines(config.initial),
        *job.plan_lines(config.stages),
        *_judges(config.model),
    ]


def _check_initial(config: TrainTokenizerConfig) -> None:
    """Refuse plain copies of weights that have seen images alone where videos follow."""
    initial = config.initial
    if initial is None or initial.how != "same" or _trained_frames(config, given=None) == 1:
        return
    if _seen_frames(initial.uri) == 1:
        raise UserError(
            f"initial.how: same; {initial.uri} has been trained on images alone, and its layers "
            "that double time are half untrained: allowed before stages of videos is inflate"
        )


def _trained_frames(config: TrainTokenizerConfig, given: int | None) -> int:
    """Return the frames of the longest clip that a run's tokenizer has then been trained on."""
    return max(given or 1, *(mix.frames for stage in config.stages for mix in stage.data))


def _seen_frames(uri: str) -> int | None:
    """Return the same of an exported tokenizer; None where nothing says so."""
    file = storage.join(uri, artifact.SUMMARY)
    found = storage.read_map(file).get("trained_frames") if storage.exists(file) else None
    return found if isinstance(found, int) else None


def _judges(model: TokenizerConfig) -> list[str]:
    """Return which terms of the loss are on."""
    perceptual, adversarial = model.perceptual, model.adversarial
    lpips = "off (model.perceptual.weights is not set)"
    if perceptual.weights is not None:
        lpips = f"weight {perceptual.weight:g}, weights of {perceptual.weights}"
    gan = "off (model.adversarial is not set)"
    if adversarial is not None:
        gan = f"weight {adversarial.weight:g}, from pass {adversarial.start_step}"
    return [f"perceptual loss: {lpips}", f"discriminator: {gan}"]


def run(config: TrainTokenizerConfig, output: Output) -> dict[str, Any]:
    """Train and return the summary."""
    figures = job.train(TokenizerTask(config.model), config, output)
    given = None if config.initial is None else _seen_frames(config.initial.uri)
    return {
        **figures,
        "parameters": parameter_count(config.model),
        "trained_frames": _trained_frames(config, given),
    }


JOB = Job("train_tokenizer", "tokenizer", TrainTokenizerConfig, plan, run)

if __name__ == "__main__":
    main(JOB)
