"""Order, padding and length of sequences."""

import pytest
import torch

from models.autoregressive.loong import ARConfig, LongtakeLlama, build_batch
from models.autoregressive.loong.sequence import build_prompts


def codes(batch: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 24, (batch, *shape), generator=torch.Generator().manual_seed(5))


def test_paper_length():
    batch = build_batch(ARConfig(), [[]], torch.zeros(1, 17, 16, 16, dtype=torch.long))
    assert batch.ids_BS.shape == (1, 4356)


def test_layout(model: LongtakeLlama):
    v = model.config.vocabulary
    clip = torch.arange(8).view(1, 2, 2, 2)
    batch = build_batch(model.config, [[3, 4], [5]], clip.expand(2, -1, -1, -1))
    video = [v.video_id(code) for code in range(8)]
    assert batch.ids_BS.tolist() == [
        [v.begin_of_text, 3, 4, v.end_of_text, v.begin_of_video, *video, v.end_of_video],
        [v.begin_of_text, 5, v.end_of_text, v.begin_of_video, *video, v.end_of_video, v.pad],
    ]
    assert batch.video_start_B.tolist() == [5, 4]


def test_long_text_is_cut_alike_in_training_and_generation(model: LongtakeLlama):
    clip = codes(1, 1, 2, 2)
    batch = build_batch(model.config, [list(range(20))], clip)
    prompts = build_prompts(model.config, [list(range(20))])
    assert batch.video_start_B.tolist() == [8 + 3]
    assert torch.equal(prompts.ids_BS, batch.ids_BS[:, :11])


def test_prompts_align_at_their_ends(model: LongtakeLlama):
    v = model.config.vocabulary
    prefix = codes(2, 1, 2, 2)
    prompts = build_prompts(model.config, [[1, 2, 3], [4]], prefix)
    assert prompts.padding_B is not None
    assert prompts.padding_B.tolist() == [0, 2]
    assert prompts.ids_BS[1, :2].tolist() == [v.pad, v.pad]
    assert torch.equal(prompts.ids_BS[:, -4:], prefix.flatten(1) + v.text)
    assert build_prompts(model.config, [[1], [4]]).padding_B is None


def test_refusals(model: LongtakeLlama):
    with pytest.raises(ValueError, match="text id 50"):
        build_batch(model.config, [[50]], codes(1, 1, 2, 2))
    with pytest.raises(ValueError, match="code 24"):
        build_batch(model.config, [[1]], torch.full((1, 1, 2, 2), 24))
    with pytest.raises(ValueError, match="1 prompts for 2 clips"):
        build_batch(model.config, [[1]], codes(2, 1, 2, 2))
    with pytest.raises(ValueError, match="expected"):
        build_batch(model.config, [[1]], codes(1, 4))
