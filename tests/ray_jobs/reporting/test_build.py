import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from infra import artifact, storage
from infra.config import build
from infra.errors import UserError
from ray_jobs import evaluate, video_table
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
    return dict(
        zip(
            ("clips", "frames", "tokenizer", "tokens", "autoregressive", "videos"),
            synthetic.every(tmp_path_factory.mktemp("artifacts")),
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def measured(inputs) -> list[evaluate.Measured]:
    settings = build(evaluate.EvaluateConfig, {"input": inputs["videos"], "output": "/unused"})
    made = read_all(settings.input)["videos"]
    return [
        evaluate.measure(storage.join(made.uri, row["file"]), row, settings)
        for row in video_table.read(made.uri)
    ]


def report(folder: Path, uris, measured=(), **settings) -> tuple[str, dict]:
    config = build(
        evaluate.EvaluateConfig, {"input": list(uris), "output": str(folder / "out"), **settings}
    )
    output = artifact.begin("report", config)
    evaluate.write(config, output, read_all(config.input), measured)
    return storage.read_text(output.path("report.html")), storage.read_json(
        output.path("metrics.json")
    )


@pytest.mark.parametrize(
    "kinds", [c for n in (1, 2, 3, 4) for c in combinations(SECTIONS, n)], ids="+".join
)
def test_a_section_for_each_artifact_and_no_other(tmp_path, inputs, measured, kinds, monkeypatch):
    monkeypatch.setattr(
        charts, "_render", lambda figure, **_: b""
    )  # drawing takes most of the time
    shown = measured if "videos" in kinds else []
    page, metrics = report(tmp_path, [inputs[k] for k in reversed(kinds)], shown)
    present = set(re.findall(r'<section id="(\w+)"', page))
    assert present == {ANCHORS[kind] for kind in kinds} | {"timings", "provenance"}
    verdicts = {figure["name"]: figure["verdict"] for figure in metrics["headline"]}
    assert (verdicts["reconstruction_psnr"] == "met") == ("tokenizer" in kinds)
    assert (verdicts["late_frames_psnr"] == "met") == ("tokenizer" in kinds)
    assert (verdicts["validation_loss"] == "met") == ("autoregressive" in kinds)
    assert (verdicts["motion"] == "met") == ("videos" in kinds)
    for figure in metrics["headline"]:
        assert (figure["value"] is None) == (figure["verdict"] == "not measured")


@pytest.mark.usefixtures("undrawn")
def test_the_shards_alone_make_a_report(tmp_path, inputs):
    page, _ = report(tmp_path, [inputs["tokens"], inputs["frames"]])
    assert "Finished artifacts: frames, tokens." in page


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs, measured) -> str:
    credit = "A film & its <makers>, CC-BY 3.0"
    folder = tmp_path_factory.mktemp("whole")
    return report(folder, inputs.values(), measured, credits=[credit])[0]


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
        build(evaluate.EvaluateConfig, {"input": [], "output": "/unused"})


@pytest.mark.usefixtures("undrawn")
def test_a_video_over_the_cap_becomes_a_link(tmp_path, inputs, measured):
    page, _ = report(tmp_path, [inputs["videos"]], measured, max_video_mib=0.001)
    assert "data:video/mp4" not in page
    assert f'href="{inputs["videos"]}/videos/0000.mp4"' in page


@pytest.mark.usefixtures("undrawn")
def test_the_page_cap_counts_all_videos(tmp_path, inputs, measured):
    first = storage.size_bytes(storage.join(inputs["videos"], "videos/0000.mp4"))
    page, _ = report(tmp_path, [inputs["videos"]], measured, max_page_mib=(first + 100) / 2**20)
    assert page.count('src="data:video/mp4') == 1


@pytest.mark.usefixtures("undrawn")
def test_fewer_videos_are_shown_than_measured(tmp_path, inputs, measured):
    page, metrics = report(tmp_path, [inputs["videos"]], measured, max_videos=1)
    assert page.count("<video") == 1
    assert len(metrics["videos"]) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_missed_target_is_said(tmp_path):
    folder = tmp_path / "in"
    poor = synthetic.tokenizer(folder, psnr_db=19.0, used=100, late_loss_db=1.1)
    uris = [poor, synthetic.autoregressive(folder, loss_nats=5.4)]
    page, metrics = report(tmp_path, uris)
    assert [f["verdict"] for f in metrics["headline"]] == [*["missed"] * 4, "not measured"]
    assert "3.1 dB above, target 4 dB" in page
    assert "0.09 nats above it" in page


@pytest.mark.usefixtures("undrawn")
def test_a_still_video_does_not_count_as_moving(tmp_path):
    uri = synthetic.videos(tmp_path, still=True)
    settings = build(evaluate.EvaluateConfig, {"input": uri, "output": "/unused"})
    row = video_table.read(uri)[1]
    record, strip = evaluate.measure(storage.join(uri, row["file"]), row, settings)
    page, metrics = report(tmp_path, [uri], [(record, strip)])
    assert metrics["headline"][-1]["verdict"] == "missed"
    assert "as good as still" in page


@pytest.mark.usefixtures("undrawn")
def test_a_video_that_cannot_be_read_is_named_and_has_no_number(tmp_path):
    uri = synthetic.videos(tmp_path / "in")
    Path(uri, "videos", "0000.mp4").write_text("no video")
    settings = build(evaluate.EvaluateConfig, {"input": uri, "output": "/unused"})
    row = video_table.read(uri)[0]
    record, strip = evaluate.measure(storage.join(uri, row["file"]), row, settings)
    assert record["motion"] is None
    assert record["problem"]
    page, metrics = report(tmp_path, [uri], [(record, strip)])
    assert metrics["headline"][-1]["verdict"] == "not measured"
    assert "not measured" in page


def test_measurements_say_how_they_were_made(measured):
    record, strip = measured[0]
    assert record["conventions"]["measured_frames"] == record["frames"] == 146
    assert record["conventions"]["all_frames"]
    assert set(record["conventions"]["scales"]) == set(record["windows"][0]) - {"start_s", "end_s"}
    assert np.isclose(record["windows"][-1]["end_s"], 146 / 12)
    assert len(strip) == 10
