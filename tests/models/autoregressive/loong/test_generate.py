"""Generation against recomputation, batches against singles, and what it refuses."""

from typing import Any

import pytest
import torch

from models.autoregressive.loong import LongtakeLlama, Sampling, build_batch, generate_tokens

GREEDY = Sampling(top_k=1)
TOP_K = Sampling(top_k=8)
SHAPE: dict[str, Any] = {"latent_frames": 4, "height": 2, "width": 3}
TEXT = [[1, 2, 3], [], [4, 5, 6, 7, 8]]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@torch.no_grad()
def test_greedy_equals_uncached_argmax(model: LongtakeLlama):
    codes = generate_tokens(model, TEXT, **SHAPE, sampling=GREEDY, generator=generators(0, 0, 0))
    # One teacher-forced pass, without cache and with the other kind of padding.
    batch = build_batch(model.config, TEXT, codes)
    logits = model(batch.ids_BS)[..., model.config.vocabulary.video_ids]
    for row, start in enumerate(batch.video_start_B.tolist()):
        wanted = logits[row, start - 1 : start + 23].argmax(dim=-1)
        assert torch.equal(codes[row].flatten(), wanted)


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        TOP_K,
        Sampling(top_k=None, temperature=0.7),
        Sampling(top_k=8, guidance_scale=3.0),
    ],
)
@pytest.mark.parametrize("known", [0, 2])
def test_batched_equals_single(model: LongtakeLlama, sampling: Sampling, known: int):
    prefix = torch.randint(0, 24, (3, known, 2, 3)) if known else None
    together = generate_tokens(
        model, TEXT, **SHAPE, sampling=sampling, generator=generators(1, 2, 3), prefix_codes=prefix
    )
    for row in range(3):
        alone = generate_tokens(
            model,
            TEXT[row : row + 1],
            **SHAPE,
            sampling=sampling,
            generator=torch.Generator().manual_seed(row + 1),
            prefix_codes=None if prefix is None else prefix[row : row + 1],
        )
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("known", [0, 2])
def test_guidance_goes_from_the_empty_prompt_to_the_prompt(model: LongtakeLlama, known: int):
    random = torch.Generator().manual_seed(3)
    prefix = torch.randint(0, 24, (3, known, 2, 3), generator=random) if known else None

    def run(scale: float, text: list[list[int]] = TEXT) -> torch.Tensor:
        return generate_tokens(
            model,
            text,
            **SHAPE,
            sampling=Sampling(top_k=8, guidance_scale=scale),
            generator=generators(1, 2, 3),
            prefix_codes=prefix,
        )

    off, empty = run(1.0), run(1.0, [[], [], []])
    assert not torch.equal(off, empty)
    assert torch.equal(run(0.0), empty)
    assert torch.equal(run(1.0 + 1e-9), off)  # on, and blends to the same scores
    assert not torch.equal(run(4.0)[0], off[0])
    assert torch.equal(run(4.0)[1], off[1])  # its prompt is empty: nothing to go away from


@torch.no_grad()
def test_guided_greedy_equals_uncached_scores(model: LongtakeLlama):
    sampling = Sampling(top_k=1, guidance_scale=3.0)
    codes = generate_tokens(model, TEXT, **SHAPE, sampling=sampling, generator=generators(0, 0, 0))
    video = model.config.vocabulary.video_ids
    for row, text in enumerate(TEXT):
        scores = []
        for prompt in (text, []):
            batch = build_batch(model.config, [prompt], codes[row : row + 1])
            start = int(batch.video_start_B[0])
            scores.append(model(batch.ids_BS)[0, start - 1 : start + 23, video])
        wanted = (scores[1] + 3 * (scores[0] - scores[1])).argmax(dim=-1)
        assert torch.equal(codes[row].flatten(), wanted)


def test_continuing_a_greedy_clip_gives_the_clip(model: LongtakeLlama):
    def run(prefix: torch.Tensor | None) -> torch.Tensor:
        return generate_tokens(
            model, [[9]], **SHAPE, sampling=GREEDY, generator=generators(0), prefix_codes=prefix
        )

    whole = run(None)
    assert torch.equal(run(whole[:, :2]), whole)


def test_seed_decides(model: LongtakeLlama):
    def run(seed: int) -> torch.Tensor:
        return generate_tokens(model, [[9]], **SHAPE, sampling=TOP_K, generator=generators(seed))

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))


def test_result_and_progress(model: LongtakeLlama):
    steps: list[int] = []
    prefix = torch.zeros(1, 1, 2, 3, dtype=torch.int32)
    codes = generate_tokens(
        model,
        [[]],
        **SHAPE,
        sampling=Sampling(top_k=None, temperature=100.0),
        generator=generators(0),
        prefix_codes=prefix,
        on_token=steps.append,
    )
    assert codes.shape == (1, 4, 2, 3)
    assert codes.dtype == torch.long
    assert (codes[:, 0] == 0).all()
    assert ((codes >= 0) & (codes < 24)).all()
    assert steps == list(range(1, 19))
    assert not codes.is_inference()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prefix_codes": torch.zeros(1, 4, 2, 3)}, "allowed are 1 to 3"),
        ({"prefix_codes": torch.zeros(1, 5, 2, 3)}, "allowed are 1 to 3"),
        ({"prefix_codes": torch.zeros(1, 1, 3, 3)}, "2x3"),
        ({"prefix_codes": torch.full((1, 1, 2, 3), 24)}, "code 24"),
        ({"latent_frames": 0}, "no tokens"),
        ({"latent_frames": 40}, "max_positions 128"),
        ({"generator": generators(0, 1)}, "2 generators for 1 prompts"),
        ({"sampling": Sampling(top_k=25)}, "25"),
    ],
)
def test_refusals(model: LongtakeLlama, changes: dict, words: str):
    settings = {**SHAPE, "sampling": GREEDY, "generator": generators(0), **changes}
    with pytest.raises(ValueError, match=words):
        generate_tokens(model, [[1]], **settings)
