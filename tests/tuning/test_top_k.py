"""Sweeps of how tokens are drawn: trials are jobs, on models that are loaded once."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import yaml

from infra import artifact, config
from infra.artifact import begin
from infra.errors import UserError
from ray_jobs.evaluate import FILM_DISTANCE, figures_of
from ray_jobs.evaluation.measures_table import FIGURES
from ray_jobs.generate import GenerateConfig
from tests.ray_jobs import untrained
from tuning import top_k
from tuning.top_k import TopKConfig


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return untrained.write(tmp_path_factory.mktemp("models"))


def settings(models: list[str], output: Path, **keys: object) -> TopKConfig:
    tree = {
        "input": models,
        "output": str(output),
        "job": {
            "prompts": ["a cat", "a dog"],
            "system": {
                "extension": {"total_frames": 21, "window_frames": 9, "reencode_frames": 5},
                "sampling": {"top_k": 16},
            },
        },
        "space": {"system.sampling.top_k": {"grid": [1, None]}},
        "trials_at_once": 2,
        **keys,
    }
    return config.build(TopKConfig, tree)


@pytest.mark.ray
def test_every_trial_is_an_artifact_and_the_best_is_a_job(ray_session, models, tmp_path: Path):
    config_ = settings(models, tmp_path / "out")
    top_k.plan(config_)
    summary = top_k.run(config_, begin("sweep", config_))
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert {row["parameter.system.sampling.top_k"] for row in rows} == {"1", "none"}
    for row in rows:
        uri = str(tmp_path / "out" / "trials" / row["trial"])
        assert artifact.read(uri, ("videos",)).counts["videos"] == 2 == row["steps"]
        names = (*FIGURES, FILM_DISTANCE)
        assert {name: row[f"figure.{name}"] for name in names} == figures_of(uri)
    least = min(rows, key=lambda row: row["objective"])
    assert summary["best"][FILM_DISTANCE] == least["figure.film_distance"]
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    drawn = config.build(GenerateConfig, {**best, "output": "/unused"}).system.sampling
    assert drawn.top_k == summary["best"]["system.sampling.top_k"]
    all_cpus = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(lambda: None)
    ray.get(all_cpus.remote(), timeout=120)  # the sweep holds on to none


def test_what_cannot_be_is_refused_before_ray(models, tmp_path: Path):
    for keys, said in (
        (
            {"objective": "loss"},
            "objective: loss is reported by no trial; allowed are film_distance",
        ),
        (
            {
                "objective": "join_colour_drift",
                "job": {
                    "prompts": ["a cat"],
                    "system": {"extension": {"total_frames": 9, "window_frames": 9}},
                },
            },
            "objective: join_colour_drift is reported by no trial",
        ),
        (
            {"space": {"system.sampling.k": {"grid": [1]}}},
            "system.sampling.k=1: system.sampling.k: unknown key",
        ),
        (
            {"space": {"system.sampling.top_k": {"grid": [0]}}},
            r"system.sampling.top_k=0: .* is not allowed",
        ),
        ({"job": {}}, "job: prompts: missing"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            top_k.plan(settings(models, tmp_path / "out", **keys))
        assert "\n" not in str(caught.value)
