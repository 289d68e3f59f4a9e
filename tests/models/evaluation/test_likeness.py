"""Film passes for film, and a still, noise, a blank screen or a fade to black never does."""

import pytest

from models.evaluation import likeness
from models.evaluation.likeness import FIGURES

CLIPS = [
    {"motion": 2.0, "sharpness": 500.0, "sharpness_ratio": 0.9, "frame_correlation": 0.95,
     "brightness_change": -3.0, "colour_drift": 10.0},
    {"motion": 8.0, "sharpness": 900.0, "sharpness_ratio": 1.2, "frame_correlation": 0.85,
     "brightness_change": 12.0, "colour_drift": 20.0},
]  # fmt: skip


def test_ranges_reach_from_the_least_to_the_most_and_steadiness_is_allowed():
    found = likeness.ranges([*CLIPS, {**CLIPS[0], "motion": None, "colour_drift": 5.0}])
    assert found["motion"] == (2, 8)
    assert found["frame_correlation"] == (0.85, 0.95)
    assert found["brightness_change"] == (0, 32)
    assert found["colour_drift"] == (0, 64)
    assert likeness.ranges([{"colour_drift": 90.0}]) == {"colour_drift": (0, 90)}
    assert "sharpness" not in likeness.ranges([{"motion": 1.0}])


def test_one_of_eight_that_fades_does_not_make_fading_usual():
    odd = {**CLIPS[0], "brightness_change": -120.0, "sharpness_ratio": 0.01, "motion": 0.0}
    found = likeness.ranges([odd, *CLIPS, *CLIPS, *CLIPS, CLIPS[0]])
    assert found["motion"] == (2, 8)
    assert found["sharpness_ratio"] == (0.9, 1.2)
    assert found["brightness_change"] == (0, 32)
    assert likeness.ranges([odd, *CLIPS])["motion"] == (0, 8)  # of three none is left out


def test_steps_are_counted_from_the_nearer_end():
    of_film = likeness.ranges(CLIPS)
    assert set(likeness.steps(CLIPS[0], of_film).values()) == {0}
    changed = {**CLIPS[0], "motion": 16.05, "frame_correlation": 0.55, "brightness_change": -64.0}
    found = likeness.steps(changed, of_film)
    assert found["motion"] == pytest.approx(1, abs=0.01)
    assert found["frame_correlation"] == pytest.approx(-1.5)
    assert found["brightness_change"] == pytest.approx(2)
    assert found["sharpness"] == 0
    assert likeness.steps({"motion": 0.0}, of_film)["motion"] < -5
    assert likeness.steps({"colour_drift": 1e9}, of_film)["colour_drift"] == likeness.MOST_STEPS
    assert likeness.steps({"motion": None}, of_film) == {}


def test_the_distance_is_the_worst_figures():
    of_film = likeness.ranges(CLIPS)
    middle = {"motion": 4.0, "sharpness": 671.0, "frame_correlation": 0.9}
    assert likeness.distance(middle, of_film) < 0.1
    assert likeness.distance({**middle, "frame_correlation": 0.2}, of_film) == pytest.approx(3.5)
    assert likeness.distance({**middle, "motion": 0.0}, of_film) > 5
    with pytest.raises(ValueError, match="no figure"):
        likeness.distance({"motion": None}, of_film)


def test_every_figure_has_a_range_of_its_own_where_no_film_is_given():
    assert likeness.film().keys() == {figure.name for figure in FIGURES}
    assert all(low < high for low, high in likeness.film().values())
