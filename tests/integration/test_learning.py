"""The models of a run learn: and a training that is broken does not pass for one that works."""

from typing import Any

import pytest
import torch
from torch import Tensor

from data_prep.samples import moving_shapes
from infra import config, storage
from infra.job import Job, execute
from models import exports
from pipelines import loong, recipe
from pipelines.recipe import PRESETS
from ray_jobs import tokenize, train_autoregressive, train_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

PSNR_BELOW_DB = 3.0
"""How far below the best solid colour of each clip, which no codec is told, a tokenizer of so few
steps may be: this one is 0.8 dB below it, an untrained one 10.7."""
LOSS_MARGIN_NATS = 0.3
"""The model is 0.85 nats below the codes' entropy, an untrained one 0.86 above it, and one that
learned from codes by chance 0.26 above."""
NO_RATE = 1e-12
SETTINGS: dict[str, Any] = {
    "prepare": {
        "analysis": {
            "filters": {
                "duration": {"min_s": 1.0},
                "resolution": {"min_short_side_px": 32},
                "motion": {"min_score": 0.0},
                "blur": {"min_sharpness": 0.0},
            }
        }
    },
    "frames": {
        "fps": 12,
        "sizes": [{"height_px": 32, "width_px": 32}],
        "validation_share": 0.25,
        "shard_mb": 0.2,
    },
    "tokenizer": {
        "model": {
            "height_px": 32,
            "width_px": 32,
            "channels": 8,
            "codebook": {"size": 64, "dim": 8, "decay": 0.9, "distance": "l2"},
        },
        "stages": [
            {
                "name": "clips",
                "steps": 250,
                "batch_size": 8,
                "data": [{"frames": 1}, {"frames": 5}],
                "learning_rate": 4e-3,
                "warmup_steps": 10,
            }
        ],
        "run": {"checkpoint_every_steps": 250, "validate_every_steps": 250},
    },
    "tokens": {
        "windows": [{"frames": 5, "stride": 4}],
        "text": {"kind": "pieces", "max_tokens": 16},
        "shard_mb": 0.2,
    },
    "autoregressive": {
        "model": {
            "vocabulary": {"text": 32000, "video": 64},
            "hidden": 64,
            "intermediate": 128,
            "layers": 2,
            "heads": 2,
            "max_text_tokens": 16,
            "max_positions": 64,
        },
        "early_frames": 5,
        "stages": [
            {
                "name": "clips",
                "steps": 120,
                "batch_size": 8,
                "data": [{"frames": 5}],
                "learning_rate": 3e-3,
                "warmup_steps": 10,
            }
        ],
        "run": {"checkpoint_every_steps": 120, "validate_every_steps": 120},
    },
}


@pytest.fixture(scope="module")
def run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run up to its autoregressive model, on 32 films of one moving shape each."""
    folder = tmp_path_factory.mktemp("learning")
    corpus = moving_shapes.CorpusConfig(
        output=str(folder / "films"), films=32, width_px=64, height_px=64, fps=12.0, scene_s=2.0,
        scenes_max=1, objects_max=1,
    )  # fmt: skip
    moving_shapes.write(corpus)
    manifest = storage.join(corpus.output, moving_shapes.MANIFEST)
    tree = config.read_yaml(str(PRESETS / "loong" / "demo.yaml"))
    for step, settings in SETTINGS.items():
        tree[step] = config.merge(tree[step], settings)
    tree |= {"input": manifest, "output": str(folder / "run")}
    steps = loong.steps(config.build(loong.LoongConfig, tree))
    recipe.run([each for each in steps if each.name in SETTINGS])
    return str(folder / "run")


def reconstructs(validation: dict[str, float]) -> bool:
    """Whether held-out clips come back about as near as the best solid colour of each."""
    return validation["psnr_db"] >= validation["psnr_constant_colour_db"] - PSNR_BELOW_DB


def predicts(validation: dict[str, float]) -> bool:
    """Whether held-out tokens are foreseen better than from their frequencies, by a margin."""
    return validation["loss_nats"] <= validation["unigram_entropy_nats"] - LOSS_MARGIN_NATS


def judged(uri: str) -> dict[str, float]:
    return storage.read_json(storage.join(uri, "summary.json"))["validation"]


def trained_anew(job: Job[Any], run: str, step: str, **changes: Any) -> dict[str, float]:
    """Train a step's model once more, with some of its keys changed, and judge it."""
    tree = config.read_yaml(storage.join(run, step, "config.yaml"))
    for key, value in changes.items():
        config.put(tree, key.replace("__", "."), value)
    settings = config.build(job.config, tree)
    execute(job, settings)
    return judged(settings.output)


def test_both_models_learn(run: str):
    assert reconstructs(judged(f"{run}/tokenizer")), judged(f"{run}/tokenizer")
    assert predicts(judged(f"{run}/autoregressive")), judged(f"{run}/autoregressive")


def test_without_a_learning_rate_neither_model_passes(run: str):
    still = {"stages__0__learning_rate": NO_RATE}
    tokenizer = trained_anew(
        train_tokenizer.JOB, run, "tokenizer", output=f"{run}/still_tokenizer", **still
    )
    assert not reconstructs(tokenizer), tokenizer
    autoregressive = trained_anew(
        train_autoregressive.JOB, run, "autoregressive", output=f"{run}/still_model", **still
    )
    assert not predicts(autoregressive), autoregressive


class Shuffled:
    """The run's tokenizer, but for its codes, which are drawn anew and tell nothing."""

    def __init__(self, uri: str, device: torch.device) -> None:
        self._codec = exports.load_codec(uri, device)
        self._generator = torch.Generator().manual_seed(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, x_BCFHW: Tensor) -> Tensor:
        codes = self._codec.encode(x_BCFHW)
        size = int(self._codec.spec.latent.codebook_size)  # type: ignore[union-attr]
        return torch.randint(size, codes.shape, generator=self._generator)


def test_with_shuffled_targets_the_model_does_not_pass(run: str):
    job = tokenize.job(tokenize.Codecs(load=Shuffled))  # type: ignore[arg-type]
    tree = config.read_yaml(storage.join(run, "tokens", "config.yaml"))
    shuffled = config.build(tokenize.TokenizeConfig, {**tree, "output": f"{run}/shuffled"})
    execute(job, shuffled)
    validation = trained_anew(
        train_autoregressive.JOB, run, "autoregressive", input=[shuffled.output],
        output=f"{run}/of_shuffled",
    )  # fmt: skip
    assert not predicts(validation), validation
