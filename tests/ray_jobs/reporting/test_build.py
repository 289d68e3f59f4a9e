import re
from itertools import combinations
from pathlib import Path

import pytest

from infra import artifact, storage
from infra.config import build
from infra.errors import UserError
from ray_jobs import report as job
from ray_jobs.evaluation import measures_table
from ray_jobs.reporting import charts
from ray_jobs.reporting.inputs import read_all
from tests.ray_jobs.reporting import synthetic

SECTIONS = ("videos", "clips", "tokenizer", "autoregressive")
ANCHORS = dict(zip(SECTIONS, ("generated", "data", "tokenizer", "autoregressive"), strict=True))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leave the charts blank: drawing takes most of a report's time."""
    monkeypatch.setattr(charts, "_render", lambda figure, **_: b"")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    names = (
        *("clips", "frames", "tokenizer", "tokens", "autoregressive", "videos", "measures"),
        "film_measures",
    )
    made = synthetic.every(tmp_path_factory.mktemp("artifacts"))
    return dict(zip(names, made, strict=True))


def report(folder: Path, uris, **settings) -> tuple[str, dict]:
    config = build(
        job.ReportConfig, {"input": list(uris), "output": str(folder / "out"), **settings}
    )
    output = artifact.begin("report", config)
    job.run(config, output)
    figures = storage.read_json(output.path("headline.json"))
    return storage.read_text(output.path("report.html")), {
        figure["name"]: figure for figure in figures
    }


@pytest.mark.parametrize(
    "kinds", [c for n in (1, 2, 3, 4) for c in combinations(SECTIONS, n)], ids="+".join
)
@pytest.mark.usefixtures("undrawn")
def test_a_section_for_each_artifact_and_no_other(tmp_path, inputs, kinds):
    uris = [inputs[kind] for kind in reversed(kinds)]
    page, figures = report(tmp_path, uris + [inputs["measures"]] * ("videos" in kinds))
    present = set(re.findall(r'<section id="(\w+)"', page))
    assert present == {ANCHORS[kind] for kind in kinds} | {"timings", "provenance"}
    verdicts = {name: figure["verdict"] for name, figure in figures.items()}
    assert (verdicts["reconstruction_psnr"] == "met") == ("tokenizer" in kinds)
    assert (verdicts["late_frames_psnr"] == "met") == ("tokenizer" in kinds)
    assert (verdicts["validation_loss"] == "met") == ("autoregressive" in kinds)
    assert (verdicts["motion"] == "met") == ("videos" in kinds)
    for figure in figures.values():
        assert (figure["value"] is None) == (figure["verdict"] == "not measured")


@pytest.mark.usefixtures("undrawn")
def test_the_shards_alone_make_a_report(tmp_path, inputs):
    page, _ = report(tmp_path, [inputs["tokens"], inputs["frames"]])
    assert "Finished artifacts: frames, tokens." in page


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs) -> str:
    credit = "A film & its <makers>, CC-BY 3.0"
    folder = tmp_path_factory.mktemp("whole")
    return report(folder, inputs.values(), credits=[credit])[0]


def test_the_page_needs_nothing_outside_itself(whole):
    sources = re.findall(r'(?:src|poster|srcset|action)\s*=\s*"([^"]*)"', whole)
    assert len(sources) > 50
    assert all(re.match(r"data:(image/(jpeg|png|svg\+xml)|video/mp4);base64,", s) for s in sources)
    assert all(href.startswith("#") for href in re.findall(r'href\s*=\s*"([^"]*)"', whole))
    assert not re.search(r"https?://|//\w+\.\w|@import|url\(", re.sub(r"base64,[^\"]*", "", whole))


def test_names_captions_prompts_and_details_are_escaped(whole):
    assert whole.count("<script>") == 1
    assert "<img src=x" not in whole
    assert "<makers>" not in whole
    assert "A film &amp; its &lt;makers&gt;" in whole
    assert "&lt;script&gt;alert(" in whole


def test_accounting_is_shown_and_every_quarantined_input_listed(whole):
    assert "11 inputs = 6 kept + 2 filtered" in whole
    for name in ("leer ä ö.mp4", "cut off.mp4"):
        assert name in whole


@pytest.mark.usefixtures("undrawn")
def test_scores_without_limits_are_said_to_be_so(tmp_path, whole):
    page, _ = report(tmp_path, [synthetic.clips(tmp_path / "in", score_only=True)])
    assert "no limit was applied" in page
    assert "no limit was applied" not in whole


def test_joins_are_on_the_timeline(whole):
    assert whole.count("data-at=") == 5 + 1  # four joins make five stretches; no join makes one


def test_a_summary_that_does_not_add_up_is_refused(tmp_path):
    uri = synthetic.clips(tmp_path)
    summary = storage.read_json(storage.join(uri, "summary.json"))
    storage.write_json(storage.join(uri, "summary.json"), {**summary, "kept": 5})
    with pytest.raises(UserError, match=r"does not add up: 11 inputs.*= 10$"):
        read_all([uri])


@pytest.mark.usefixtures("undrawn")
def test_a_table_that_differs_from_its_summary_is_refused(tmp_path):
    uri = synthetic.clips(tmp_path)
    summary = storage.read_json(storage.join(uri, "summary.json"))
    wrong = {**summary, "kept": 5, "filtered": {"duplicate": 3}}
    storage.write_json(storage.join(uri, "summary.json"), wrong)
    with pytest.raises(UserError, match=r"kept = 5, the table holds 6") as caught:
        report(tmp_path, [uri])
    assert "\n" not in str(caught.value)


def test_what_is_missing_unfinished_or_given_twice_is_refused(tmp_path, inputs):
    with pytest.raises(UserError, match="no artifact here"):
        read_all([str(tmp_path / "nothing")])
    unfinished = Path(synthetic.tokenizer(tmp_path))
    (unfinished / "artifact.json").rename(unfinished / "unfinished.json")
    with pytest.raises(UserError, match="unfinished"):
        read_all([inputs["clips"], str(unfinished)])
    with pytest.raises(UserError, match="both of kind 'clips'"):
        read_all([inputs["clips"], inputs["clips"]])
    with pytest.raises(UserError, match="input"):
        build(job.ReportConfig, {"input": [], "output": "/unused"})


@pytest.mark.usefixtures("undrawn")
def test_a_video_over_the_cap_becomes_a_link(tmp_path, inputs):
    page, _ = report(tmp_path, [inputs["videos"], inputs["measures"]], max_video_mib=0.001)
    assert "data:video/mp4" not in page
    assert f'href="{inputs["videos"]}/videos/0000.mp4"' in page


@pytest.mark.usefixtures("undrawn")
def test_the_page_cap_counts_all_videos(tmp_path, inputs):
    first = storage.size_bytes(storage.join(inputs["videos"], "videos/0000.mp4"))
    page, _ = report(tmp_path, [inputs["measures"]], max_page_mib=(first + 100) / 2**20)
    assert page.count('src="data:video/mp4') == 1


@pytest.mark.usefixtures("undrawn")
def test_fewer_videos_are_shown_than_measured(tmp_path, inputs):
    page, _ = report(tmp_path, [inputs["measures"]], max_videos=1)
    assert page.count("<video") == 1


@pytest.mark.usefixtures("undrawn")
def test_videos_that_were_not_measured_are_shown_without_a_number(tmp_path, inputs):
    page, figures = report(tmp_path, [inputs["videos"]])
    assert page.count("<video") == 2
    assert figures["motion"]["verdict"] == "not measured"


@pytest.mark.usefixtures("undrawn")
def test_a_video_that_is_gone_is_said_to_be(tmp_path):
    made = synthetic.videos(tmp_path)
    measures = synthetic.measures(tmp_path, made)
    Path(made, "videos", "0000.mp4").unlink()
    page, _ = report(tmp_path, [measures])
    assert page.count("<video") == 1
    assert "The video is not there any more" in page


@pytest.mark.usefixtures("undrawn")
def test_a_missed_target_is_said(tmp_path):
    folder = tmp_path / "in"
    poor = synthetic.tokenizer(folder, psnr_db=19.0, used=100, late_loss_db=1.1)
    uris = [poor, synthetic.autoregressive(folder, loss_nats=5.4)]
    page, figures = report(tmp_path, uris)
    verdicts = [figure["verdict"] for figure in figures.values()]
    assert verdicts == [*["missed"] * 4, *["not measured"] * 6]
    assert "3.1 dB above, target 4 dB" in page
    assert "0.09 nats above it" in page


@pytest.mark.usefixtures("undrawn")
def test_several_measures_stand_side_by_side(tmp_path, inputs):
    other = synthetic.videos(tmp_path / "held_out", still=True)
    still = synthetic.measures(tmp_path, other, "still")
    page, figures = report(tmp_path, [inputs["videos"], inputs["measures"], still])
    assert 'id="compared"' in page
    assert page.count("<video") == 2  # of the generated videos alone
    (film,) = {row["motion"] < 0.1 for row in measures_table.read(still)}
    assert film
    assert figures["motion"]["verdict"] == "met"  # the still film is no generated video
    _, both = report(tmp_path / "b", [inputs["measures"], still])
    assert both["motion"]["verdict"] == "missed"  # without `videos`, both are
