"""A sample's totals: exact where the sample is everything, honest where it is not."""

import math

import numpy as np
import pytest

from data_prep.projection import MEASURES, Interval, Sample, measures, project, wall_hours

IDS = [f"video-{n}" for n in range(200)]


def corpus(count: int, seed: int) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    values = random.lognormal(0, 0.5, (count, len(MEASURES)))
    return [dict(zip(MEASURES, row.tolist(), strict=True)) for row in values]


def drawn(ids: list[str], count: int, seed: int, at_once: int = 7) -> list[int]:
    sample = Sample(count, seed)
    for at in range(0, len(ids), at_once):
        sample.offer(ids[at : at + at_once], range(at, min(at + at_once, len(ids))))
    assert sample.seen == len(ids)
    return sample.drawn


def test_a_sample_does_not_depend_on_the_order_of_the_corpus():
    chosen = [IDS[place] for place in drawn(IDS, 10, seed=0)]
    backwards = IDS[::-1]
    assert [backwards[place] for place in drawn(backwards, 10, seed=0)] == chosen
    assert drawn(IDS, 10, seed=0, at_once=200) == drawn(IDS, 10, seed=0)
    assert {IDS[place] for place in drawn(IDS, 10, seed=1)} != set(chosen)
    assert len(drawn(IDS[:3], 10, seed=0)) == 3
    assert drawn(IDS, 0, seed=0) == []


def test_a_sample_of_everything_is_exact():
    videos = corpus(7, seed=0)
    for name, interval in project(videos, 7, seed=0).items():
        total = sum(video[name] for video in videos)
        assert (interval.value, interval.low, interval.high) == pytest.approx((total,) * 3)


def test_the_interval_holds_the_total_about_as_often_as_it_says():
    held = 0
    for trial in range(100):
        videos = corpus(300, seed=trial)
        sampled = [videos[place] for place in drawn(IDS + IDS[:100], 40, seed=trial)]
        interval = project(sampled, 300, seed=trial)["cpu_hours"]
        held += interval.low <= sum(video["cpu_hours"] for video in videos) <= interval.high
    assert 85 <= held <= 100


def test_one_video_knows_nothing_of_spread():
    interval = project(corpus(1, seed=0), 10, seed=0)["cpu_hours"]
    assert interval.low == 0
    assert math.isinf(interval.high)


def test_a_row_counts_what_it_kept():
    clips = [{"status": "kept"}, {"status": "filtered"}]
    row = {"status": "kept", "cpu_seconds": 36.0, "duration_s": 360.0, "clips": clips}
    assert measures(row, 10**6) == {
        "cpu_hours": 0.01, "source_hours": 0.1, "output_gb": 0.001,
        "kept_videos": 1.0, "kept_clips": 1.0,
    }  # fmt: skip
    broken = {**row, "status": "quarantined", "clips": []}
    assert measures(broken, 0)["source_hours"] == 0
    assert measures(broken, 0)["kept_videos"] == 0


def test_tasks_at_once_are_bounded_by_cpus_and_by_videos():
    hours = Interval(8, 4, 16)
    assert wall_hours(hours, cpus=8, cpus_per_task=2, videos=100) == Interval(2, 1, 4)
    assert wall_hours(hours, cpus=64, cpus_per_task=1, videos=2) == Interval(4, 2, 8)
    assert wall_hours(hours, cpus=1, cpus_per_task=2, videos=5) == hours
