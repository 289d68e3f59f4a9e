"""Loong's ablations on a finished run: λ and stages in training, k and extension in generation.

::

    tokens ─train_autoregressive─▶ each training arm, for each seed
    tokenizer + one arm's model ─generate─▶ each generation arm, for each seed
                                            └─▶ ablation.json, ablation.png

Every training and generation is the run's own job with some keys changed, so what is finished is
passed over. The predictions stand in the preset, and come out beside what was found.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any

from pydantic import Field, model_validator

from infra import artifact, storage
from infra import config as configs
from infra.config import Section, Uri
from infra.errors import UserError
from infra.progress import say
from models.autoregressive.loong.loss import FRAME_RANGES
from pipelines import ablation
from pipelines.ablation import Prediction
from pipelines.recipe import Step, main, step
from ray_jobs import generate, train_autoregressive
from ray_jobs.evaluate import VIDEO_FIGURES, figures_of

Keys = dict[str, Any]
TRAINED = (
    "loss_nats",
    *(f"loss_frames_{a}" if a == b else f"loss_frames_{a}_{b}" for a, b in FRAME_RANGES),
)


class Arms(Section):
    """Variants of one job."""

    common: Keys = Field(default_factory=dict)
    """Keys of the job that differ from the run's in all arms."""
    arms: Annotated[dict[str, Keys], Field(min_length=1)]
    """Name to the keys that differ in that arm."""


class GenerationArms(Arms):
    """Variants of generation, all from one training arm's models."""

    of: str
    """The training arm."""


class LoongAblationConfig(Section):
    """Settings of the ablation."""

    input: Uri
    """A finished run of `pipelines.loong`."""
    output: Uri
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    training: Arms
    generation: GenerationArms
    predictions: tuple[Prediction, ...]

    @model_validator(mode="after")
    def _check(self) -> "LoongAblationConfig":
        if self.generation.of not in self.training.arms:
            raise ValueError(
                f"generation.of: no training arm {self.generation.of}; there are "
                f"{', '.join(self.training.arms)}"
            )
        if both := set(self.training.arms).intersection(self.generation.arms):
            raise ValueError(f"arm {min(both)}: of training and of generation; allowed is one")
        return self


def steps(config: LoongAblationConfig) -> list[Step]:
    """Return all trainings, then all generations, every config checked."""
    trained = dict.fromkeys(config.training.arms, TRAINED)
    made = dict.fromkeys(config.generation.arms, VIDEO_FIGURES)
    ablation.check(config.predictions, {**trained, **made})
    tokenizer = storage.join(config.input, "tokenizer")
    return [
        step(
            f"{name} seed {seed}",
            train_autoregressive.JOB,
            _changed(config, "autoregressive", config.training, arm),
            input=[storage.join(config.input, "tokens")],
            output=_place(config, name, seed),
            seed=seed,
        )
        for seed in config.seeds
        for name, arm in config.training.arms.items()
    ] + [
        step(
            f"{name} seed {seed}",
            generate.JOB,
            _changed(config, "generate", config.generation, arm),
            input=[tokenizer, _place(config, config.generation.of, seed)],
            output=_place(config, name, seed),
            seed=seed,
        )
        for seed in config.seeds
        for name, arm in config.generation.arms.items()
    ]


def check_input(config: LoongAblationConfig) -> None:
    """Refuse a run that is not finished, before the first training."""
    for name in ("tokenizer", "tokens", "autoregressive", "generate"):
        artifact.read(storage.join(config.input, name))


def write(config: LoongAblationConfig) -> str:
    """Write ``ablation.json`` and ``ablation.png`` and return the JSON's URI."""
    figures = {
        **{name: _of_seeds(config, name, _trained) for name in config.training.arms},
        **{name: _of_seeds(config, name, figures_of) for name in config.generation.arms},
    }
    outcome = ablation.outcomes(config.predictions, figures)
    picture = ablation.picture(outcome, figures)
    storage.write_bytes(storage.join(config.output, "ablation.png"), picture)
    written = storage.join(config.output, "ablation.json")
    storage.write_json(written, {"predictions": outcome, "figures": figures})
    for line in ablation.lines(outcome):
        say(line)
    return written


def _of_seeds(config: LoongAblationConfig, arm: str, of: Any) -> Mapping[int, Mapping[str, float]]:
    return {seed: of(_place(config, arm, seed)) for seed in config.seeds}


def _trained(uri: str) -> dict[str, float]:
    said = storage.read_json(storage.join(uri, "summary.json"))["validation"]
    return {name: float(said[name]) for name in TRAINED if name in said}


def _changed(config: LoongAblationConfig, name: str, arms: Arms, arm: Keys) -> Keys:
    """Return the run's config of a step with an arm's keys put in."""
    file = storage.join(config.input, name, "config.yaml")
    if not storage.exists(file):
        raise UserError(f"input {config.input}: no {name} there; give a run of pipelines.loong")
    tree = configs.read_yaml(file)
    for key, value in (*arms.common.items(), *arm.items()):
        try:
            configs.put(tree, key, deepcopy(value))
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
    return tree


def _place(config: LoongAblationConfig, arm: str, seed: int) -> str:
    return storage.join(config.output, arm, f"seed_{seed}")


if __name__ == "__main__":
    main("loong_ablation", LoongAblationConfig, steps, check_input, write)
