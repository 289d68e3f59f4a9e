"""The report's verdicts on videos: film passes, and what is no film never does."""

import pytest

from models.evaluation import likeness
from ray_jobs.reporting import film_verdicts

FILM = {"motion": 4.0, "sharpness": 600.0, "sharpness_ratio": 1.0, "frame_correlation": 0.95,
        "brightness_change": -5.0, "colour_drift": 12.0}  # fmt: skip
RANGES = likeness.ranges([FILM, {**FILM, "motion": 8.0, "frame_correlation": 0.85}])
UNLIKE = {
    "as good as still": {"motion": 0.05, "frame_correlation": 1.0},
    "flickers like noise": {"motion": 60.0, "sharpness": 4e4, "frame_correlation": 0.0},
    "darkens": {"brightness_change": -90.0, "colour_drift": 150.0, "sharpness_ratio": 0.02},
    "brightens": {"brightness_change": 90.0},
    "less detail than film": {"sharpness": 0.1},
    "loses detail": {"sharpness_ratio": 0.1},
    "colours drift": {"colour_drift": 200.0},
}


@pytest.mark.parametrize("ranges", [RANGES, None])
@pytest.mark.parametrize("said", UNLIKE)
def test_one_bad_video_among_good_ones_is_the_one_that_counts(said: str, ranges):
    records = [FILM, {**FILM, **UNLIKE[said]}, FILM]
    found = {each.name: each for each in film_verdicts.figures(records, ranges)}
    missed = {name for name, each in found.items() if each.verdict == "missed"}
    assert missed
    assert missed <= UNLIKE[said].keys()
    assert any(each.remark.startswith(said) for each in found.values())


@pytest.mark.parametrize("ranges", [RANGES, None])
def test_film_passes(ranges):
    found = film_verdicts.figures(iter([FILM, FILM]), ranges)
    assert {each.verdict for each in found} == {"met"}
    assert all(each.margin == likeness.ALLOWED_STEPS for each in found)
    assert {each.baseline_name for each in found} == {"held-out film" if ranges else "film as such"}


def test_without_a_video_nothing_is_measured():
    unread = dict.fromkeys(FILM)
    for records in ([], [unread]):
        found = film_verdicts.figures(records, None)
        assert {each.verdict for each in found} == {"not measured"}
        assert [each.name for each in found] == [figure.name for figure in likeness.FIGURES]
