import pytest

from ray_jobs.reporting import contact_sheet
from tests.ray_jobs.reporting import synthetic


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return synthetic.clips(tmp_path_factory.mktemp("clips"), videos=12, row_group_size=1)


def test_evenly_spaced_positions_are_distinct_and_hold_both_ends():
    for count in range(0, 60):
        for most in range(1, 20):
            places = contact_sheet.evenly(count, most)
            assert len(places) == min(count, most)
            assert places == sorted(set(places))
            if count and most > 1:
                assert (places[0], places[-1]) == (0, count - 1)


def test_counts_agree_with_the_table(uri):
    table = contact_sheet.read(uri, per_group=4)
    assert dict(table.rows) == {"kept": 12, "filtered": 2, "quarantined": 3}
    assert sum(table.clips.values()) == 12 * 14
    assert {name: sum(map(len, v.values())) for name, v in table.scores.items()} == dict.fromkeys(
        contact_sheet.SCORES, 168
    )


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_a_cap_takes_the_evenly_spaced_clips_of_the_whole(uri, most):
    every = contact_sheet.read(uri, per_group=1000).pictures
    few = contact_sheet.read(uri, per_group=most).pictures
    for group, pictures in every.items():
        places = contact_sheet.evenly(len(pictures), most)
        assert few[group] == [pictures[i] for i in places]
    assert all(p["thumbnail"][:2] == b"\xff\xd8" for p in every["kept"])
    assert all(p["status"] == "filtered" for g, ps in every.items() if g != "kept" for p in ps)
