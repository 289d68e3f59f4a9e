"""Settings that a mode ignores are refused, in every section that has such modes."""

from typing import Any

import pytest

from infra.config import Section, as_tree, build
from infra.errors import UserError
from models.autoregressive.loong import Extension
from models.losses.config import AdversarialConfig, PerceptualConfig
from models.tokenizer import CVQConfig
from ray_jobs.training.config import BadLossConfig
from ray_jobs.training.initial import InitialConfig

CASES: list[tuple[type[Section], dict[str, Any], str, dict[str, Any]]] = [
    (CVQConfig, {"anchor": "closest", "seed": 3}, "seed 3", {"anchor": "probrandom"}),
    (
        CVQConfig,
        {"contrastive_temperature": 0.1},
        "contrastive_temperature 0.1",
        {"contrastive_weight": 1.0},
    ),
    (PerceptualConfig, {"weight": 2.0}, "weight 2.0", {"weights": "/a.safetensors"}),
    (
        AdversarialConfig,
        {"lecam_weight": 0, "lecam_decay": 0.5},
        "lecam_decay 0.5",
        {"lecam_weight": 1},
    ),
    (BadLossConfig, {"most_skipped": 3}, "most_skipped 3", {"policy": "skip"}),
    (BadLossConfig, {"spike_window": 9}, "spike_window 9", {"spike_ratio": 2.0}),
    (Extension, {"total_frames": 65, "strategy": "naive"}, "strategy naive", {"total_frames": 66}),
    (Extension, {"total_frames": 9, "match_colour": True}, "match_colour", {"total_frames": 90}),
    (InitialConfig, {"from": "/a", "trained_on": "videos"}, "trained_on", {"how": "inflate"}),
]


@pytest.mark.parametrize(("section", "stated", "named", "heeds"), CASES)
def test_what_a_mode_ignores_is_refused_and_what_heeds_it_is_not(
    section: type[Section], stated: dict[str, Any], named: str, heeds: dict[str, Any]
):
    with pytest.raises(UserError, match=named) as caught:
        build(section, stated)
    assert "\n" not in str(caught.value)
    made = build(section, {**stated, **heeds})
    assert build(section, as_tree(made)) == made


@pytest.mark.parametrize("section", [CVQConfig, PerceptualConfig, AdversarialConfig, BadLossConfig])
def test_defaults_that_are_written_out_are_read_back(section: type[Section]):
    assert build(section, as_tree(section())) == section()
