"""Scenes of moving shapes: what the caption says is true of every part of them."""

import math
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.samples.moving_shapes import FilmConfig, film
from data_prep.samples.moving_shapes.scene import SPEEDS, STRAIGHT

FORMS = st.sampled_from([(256, 256), (64, 64), (320, 240), (144, 192), (512, 64), (64, 512)])


@given(st.integers(0, 10**6), FORMS, st.sampled_from([2.0, 4.0, 60.0]))
def test_shapes_stay_inside_and_straight_ones_never_turn(seed, form, scene_s) -> None:
    one = film(FilmConfig(width_px=form[0], height_px=form[1], scene_s=scene_s), seed, 0)
    height = form[1] / form[0]
    times = np.linspace(0, scene_s, 200)
    for scene in one.scenes:
        for placed in scene.objects:
            path = placed.path(times, height)
            for at, (low, high) in zip(path.T, placed.room(height), strict=True):
                assert low - 1e-9 <= at.min()
                assert at.max() <= high + 1e-9
            if placed.actor.direction in STRAIGHT:
                steps = np.diff(path, axis=0) @ np.array(STRAIGHT[placed.actor.direction])
                assert steps.min() > 0


@given(st.integers(0, 10**6))
def test_objects_have_colours_of_their_own_and_begin_apart(seed) -> None:
    for scene in film(FilmConfig(), seed, 3).scenes:
        assert len({placed.actor.colour for placed in scene.objects}) == len(scene.objects)
        for a, b in combinations(scene.objects, 2):
            assert math.dist(a.start, b.start) > a.radius + b.radius


@given(st.integers(0, 10**6))
def test_the_speed_over_whole_periods_is_that_of_the_word(seed) -> None:
    for placed in film(FilmConfig(scene_s=4), seed, 1).scenes[0].objects:
        low, high = SPEEDS[placed.actor.speed]
        times = np.linspace(0, 4, 4001)
        path = placed.path(times, 1.0)
        way = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
        assert 0.99 * low <= way / 4 <= 1.01 * high


def test_shapes_pass_behind_each_other_and_all_words_occur() -> None:
    films = [film(FilmConfig(), 0, number) for number in range(150)]
    several = [one for one in films if len(one.scenes[0].objects) > 1]
    occluding = [one for one in several if one.truth()["scenes"][0]["overlaps"]]
    assert len(occluding) > 0.9 * len(several)
    text = " ".join(one.caption for one in films)
    for word in (
        *("One", "Two", "Three", "circle", "square", "triangle", "to the right", "to the left"),
        *("upwards", "downwards", "side to side", "up and down", "around", "slowly", "quickly"),
        *("red", "yellow", "green", "blue", "purple", "now faster, now slower"),
    ):
        assert word in text, word
    assert {len(one.scenes) for one in films} == {1, 2}
