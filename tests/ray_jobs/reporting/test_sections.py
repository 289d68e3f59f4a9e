import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.filters import SCORED, FiltersConfig
from infra import config
from ray_jobs.reporting import contact_sheet, sections
from ray_jobs.reporting.inputs import read_all
from tests.ray_jobs.reporting import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    uri = synthetic.clips(tmp_path_factory.mktemp("clips"))
    return sections.data(read_all([uri]).by_kind["clips"], per_group=1)


def test_every_score_has_an_axis_and_every_limit_is_a_setting():
    assert {each.score.name for each in SCORED} == set(contact_sheet.SCORES)
    limits = config.as_tree(FiltersConfig())
    known = {(name, key) for name, keys in limits.items() if name != "score_only" for key in keys}
    drawn = {(each.name, key) for each in SCORED for key in each.drawn}
    assert drawn == known - {("duration", "stride_s"), ("duration", "trim_s")}


def test_every_score_is_drawn_and_limits_that_are_near_stand_in_it(data):
    drawn = {}
    for chart in data["histograms"]:
        head, _, body = chart["source"].partition(",")
        assert head == "data:image/svg+xml;base64"
        drawn[chart["title"]] = base64.b64decode(body).decode()
    assert set(drawn) == {each.score.title for each in SCORED}
    for title, limit in (("Black", "0.3"), ("Motion", "0.9"), ("Brightness", "12")):
        assert f"limit {limit}<" in drawn[title]
    assert "limit 20<" in drawn["Sharpness"]
    assert "limit" not in drawn["Shape"]  # both limits are far from the only shape there is
    assert "limit" not in drawn["Black bars"]


def test_a_table_without_the_newer_scores_is_drawn_without_them(tmp_path):
    uri = synthetic.clips(tmp_path)
    first = ("duration_s", "short_side_px", "motion", "brightness")
    for file in Path(uri, "clips").iterdir():
        rows = pq.read_table(file).to_pylist()
        for clip in (clip for row in rows for clip in row["clips"]):
            clip["scores"] = {name: clip["scores"][name] for name in first}
        pq.write_table(pa.Table.from_pylist(rows), file)
    drawn = sections.data(read_all([uri]).by_kind["clips"], per_group=1)["histograms"]
    assert {d["title"] for d in drawn} == {
        each.score.title for each in SCORED if each.score.name in first
    }


def test_two_of_a_kind_are_told_apart_by_the_ends_of_their_places():
    assert sections._endings(["/a/run/x", "/a/run/y"]) == ["x", "y"]
    assert sections._endings(["/a/one/x", "/a/two/x/", "/b/y"]) == ["one/x", "two/x", "b/y"]
    assert sections._endings(["s3://b/x", "s3://b/x"]) == ["s3://b/x"] * 2
