"""Prompts about moving shapes: what the corpus writes is read back, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.samples.moving_shapes.captions import caption
from data_prep.samples.moving_shapes.scene import COLOURS, SHAPES, SPEEDS, STRAIGHT, Actor
from models.evaluation.shapes import parse

DIRECTIONS = [*STRAIGHT, "side to side", "up and down", "around"]
ACTORS = st.builds(
    Actor,
    colour=st.sampled_from(COLOURS),
    shape=st.sampled_from(SHAPES),
    direction=st.sampled_from(DIRECTIONS),
    speed=st.sampled_from(list(SPEEDS)),
    pace=st.sampled_from(["constant", "changing"]),
)
CASTS = st.lists(ACTORS, min_size=1, max_size=3, unique_by=lambda actor: actor.colour)


@given(CASTS)
def test_every_caption_of_the_corpus_is_read_back(cast) -> None:
    read = parse(caption(cast)).objects
    assert [(o.colour, o.shape, o.direction, o.speed, o.changing) for o in read] == [
        (a.colour, a.shape, a.direction, a.speed, a.pace == "changing") for a in cast
    ]


def test_the_count_may_be_left_out_and_case_does_not_matter() -> None:
    short = parse("a red circle moves slowly  to the right")
    assert short == parse(
        "One shape moves on a grey background. A Red circle moves slowly to the RIGHT."
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "A squirrel on a tree.",
        "A red circle moves slowly around.",
        "A red circle bounces slowly to the right.",
        "A pink circle moves slowly to the right.",
        "Two shapes move on a grey background. A red circle moves slowly to the right.",
        "A red circle moves slowly to the left. A red square moves slowly to the right.",
        "A red circle moves slowly to the right and sings.",
    ],
)
def test_other_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|speaks of"):
        parse(prompt)
