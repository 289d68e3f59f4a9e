"""The numbers of the paper, and a layout without gaps or overlaps."""

import pytest
from pydantic import ValidationError

from models.autoregressive.loong import Vocabulary
from models.autoregressive.loong.vocabulary import SPECIAL_NAMES


def test_paper_numbers():
    vocabulary = Vocabulary()
    assert vocabulary.total == 40_202
    assert vocabulary.video_ids == slice(32_000, 40_192)
    assert vocabulary.pad == 40_192


def test_every_id_has_one_meaning():
    vocabulary = Vocabulary(text=7, video=5)
    video = [vocabulary.video_id(code) for code in range(5)]
    special = [vocabulary.special_id(name) for name in SPECIAL_NAMES]
    assert [*range(7), *video, *special] == list(range(vocabulary.total))
    assert [vocabulary.code(video_id) for video_id in video] == list(range(5))


def test_named_specials_are_distinct():
    v = Vocabulary()
    named = {v.pad, v.begin_of_text, v.end_of_text, v.begin_of_video, v.end_of_video}
    assert len(named) == 5


@pytest.mark.parametrize("code", [-1, 5])
def test_refuses_codes_outside_the_codebook(code: int):
    with pytest.raises(ValueError, match=r"\[0, 5\)"):
        Vocabulary(text=7, video=5).video_id(code)


@pytest.mark.parametrize("video_id", [6, 12])
def test_refuses_ids_that_are_not_video(video_id: int):
    with pytest.raises(ValueError, match="not a video id"):
        Vocabulary(text=7, video=5).code(video_id)


def test_refuses_another_number_of_specials_and_unknown_names():
    with pytest.raises(ValidationError):
        Vocabulary(special=9)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="reserved_9"):
        Vocabulary().special_id("reserved_9")
