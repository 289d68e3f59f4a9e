"""Every preset of a sweep fits the jobs of the demo; Loong's ablations compare what they should."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.loader import Mix
from infra import config
from pipelines import loong
from pipelines.recipe import PRESETS
from ray_jobs import continuation, generate, train_autoregressive
from ray_jobs.evaluation.measures_table import FIGURES
from ray_jobs.train_tokenizer import TrainTokenizerConfig
from tuning import joins, loss_weight, sweep, top_k
from tuning.config import points_of

FOLDER = Path(sweep.__file__).parent / "presets"
OF = {
    "loss_weight_demo": (loss_weight, "autoregressive"),
    "loong_training_arms": (loss_weight, "autoregressive"),
    "top_k_demo": (top_k, "generate"),
    "loong_generation_arms": (top_k, "generate"),
    "loong_join_arms": (joins, None),
}
"""Preset to its sweep and the section of the demo's recipe that its trials start from, if any."""
JOBS = {loss_weight: train_autoregressive.JOB, top_k: generate.JOB, joins: continuation.JOB}


def preset(name: str, tmp_path: Path) -> Any:
    """Return a preset over the config that the demo's recipe gives the job."""
    module, section = OF[name]
    given = [f"input={tmp_path}", f"output={tmp_path / 'out'}"]
    if section is not None:
        demo = config.read_yaml(str(PRESETS / "loong" / "demo.yaml"))[section]
        base = tmp_path / "base.yaml"
        given_too = {"input": ["unused"], "output": "unused"}
        given_too |= {"prompts": ["a film"]} if section == "generate" else {}
        base.write_text(yaml.safe_dump({**demo, **given_too}))
        given.append(f"base={base}")
    return config.load(module.JOB.config, [FOLDER / f"{name}.yaml"], given)


def test_every_preset_is_listed():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(OF)


@pytest.mark.parametrize("name", OF)
def test_every_trial_of_a_preset_has_a_config(name: str, tmp_path: Path):
    config_ = preset(name, tmp_path)
    job = JOBS[OF[name][0]]
    points = points_of(config_)
    assert points
    built = [config.dump(sweep.build(config_, job, point)) for point in points]
    assert len(set(built)) == len(points)


def test_loongs_training_arms_are_the_demos_job_with_some_keys_changed(tmp_path: Path):
    config_ = preset("loong_training_arms", tmp_path)
    weights, tokens, lengths = {}, {}, {}
    latents = {1: 1, 17: 5, 65: 17}
    for arm in config_.arms:
        built = sweep.build(config_, train_autoregressive.JOB, {"arm": arm, "seed": 2})
        assert built.seed == 2
        weights[arm] = built.stages[-1].early_frame_weight
        tokens[arm] = sum(  # 64 codes a latent frame at 64 px, lengths in proportion to weights
            64 * stage.steps * stage.batch_size
            * sum(latents[mix.frames] * mix.weight for mix in stage.data)
            / sum(mix.weight for mix in stage.data)
            for stage in built.stages
        )  # fmt: skip
        assert built.stages[0].data == (Mix(frames=1),), "every arm is pretrained on images"
        assert built.stages[0] == sweep.build(config_, train_autoregressive.JOB, {}).stages[0]
        lengths[arm] = [max(mix.frames for mix in stage.data) for stage in built.stages]
    assert weights == {"lambda_0": 0.0, "lambda_1": 1.0, "lambda_4": 4.0, "long_only": 0.0}
    assert lengths.pop("long_only") == [1, 65]
    assert set(map(tuple, lengths.values())) == {(1, 17, 65)}
    assert max(tokens.values()) / min(tokens.values()) < 1.02
    assert len(points_of(config_) or ()) == 12


def test_loongs_generation_arms_are_the_demos_job_with_some_keys_changed(tmp_path: Path):
    config_ = preset("loong_generation_arms", tmp_path)
    built = {arm: sweep.build(config_, generate.JOB, {"arm": arm}) for arm in config_.arms}
    assert [each.system.sampling.top_k for each in built.values()] == [1, 50, None]
    assert {each.figure for each in config_.predictions} <= set(FIGURES)


def test_loongs_joins_are_compared_where_the_tokenizer_can_show_them(tmp_path: Path):
    config_ = preset("loong_join_arms", tmp_path)
    built = {arm: sweep.build(config_, continuation.JOB, {"arm": arm}) for arm in config_.arms}
    assert {arm: each.strategy for arm, each in built.items()} == {
        "reencoded": "re-encode",
        "naive": "naive",
    }
    one, other = (each.model_copy(update={"strategy": "naive"}) for each in built.values())
    assert one == other
    said = (FOLDER / "loong_join_arms.yaml").read_text()
    (override,) = re.findall(r"'(tokenizer\.model\.temporal_kernels=\S+)'", said)
    demo = PRESETS / "loong" / "demo.yaml"
    given = [override, "input=/videos", "output=/out"]
    steps = {step.name: step for step in loong.steps(config.load(loong.LoongConfig, [demo], given))}
    tokenizer = steps["tokenizer"].config
    assert isinstance(tokenizer, TrainTokenizerConfig)
    assert tokenizer.model.temporal_kernels == (1, 1, 3, 3)
