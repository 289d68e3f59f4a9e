"""Long videos: how many frames, what is dropped at a join, and exact repetition."""

from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from infra.seeding import derive
from models.autoregressive.loong import (
    Chunk,
    Cue,
    Extension,
    LongtakeLlama,
    Sampling,
    extend,
    generate_tokens,
)
from models.autoregressive.loong import extension as extension_module
from models.autoregressive.loong.extension import cue_in_force
from models.codec import ChunkedFrames, CodecSpec, Codes
from tests.models.autoregressive.conftest import CODEC
from tests.toy_codecs import WholeClips

TEXT = [[Cue([1, 2])], [Cue([])]]
SEEDS = [11, 12]


class BrightnessTokenizer(WholeClips):
    """A causal code without learning: the code of a latent is the running mean of brightness.

    Each latent covers 4 frames of 8x8 blocks; its code mixes in the code before it, as in a causal
    tokenizer, so the same pixels have other codes at the start of a clip than later on.
    """

    codes = 24
    spec = CODEC

    def __init__(self) -> None:
        self.encoded: list[Tensor] = []
        self.decoded: list[Tensor] = []

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        assert x_BCTHW.abs().max() <= 1
        self.encoded.append(x_BCTHW)
        latents = self.spec.latents_of_frames(x_BCTHW.shape[2])
        blocks = torch.nn.functional.avg_pool2d(x_BCTHW.mean(dim=1), 8)  # (B, frames, H, W)
        level = ((blocks[:, ::4] + 1) / 2 * (self.codes - 1)).round().long()
        return torch.stack(
            [(level[:, t] + (level[:, t - 1] if t else 0)) % self.codes for t in range(latents)],
            dim=1,
        )

    def decode(self, ids_BTHW: Tensor, /) -> Tensor:
        brightness = (ids_BTHW.float() / (self.codes - 1) * 2 - 1)[:, None]
        frames = torch.cat(
            (brightness[:, :, :1], brightness[:, :, 1:].repeat_interleave(4, dim=2)), dim=2
        )
        frames = frames + 0.01 * torch.arange(frames.shape[2]).view(1, 1, -1, 1, 1)
        pixels = frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
        self.decoded.append(pixels.expand(-1, 3, -1, -1, -1).clamp(-1, 1))
        return self.decoded[-1]


def run(
    model: LongtakeLlama,
    extension: Extension,
    tokenizer: BrightnessTokenizer | None = None,
    after: Chunk | None = None,
    rows: slice = slice(None),
    seeds: list[int] = SEEDS,
    prompts: list[list[Cue]] = TEXT,
) -> list[Chunk]:
    return list(
        extend(
            model,
            tokenizer or BrightnessTokenizer(),
            prompts[rows],
            extension=extension,
            height=1,
            width=2,
            sampling=Sampling(top_k=6),
            seeds=seeds[rows],
            after=after,
        )
    )


def video(chunks: list[Chunk]) -> Tensor:
    return torch.cat([chunk.frames_BFHWC for chunk in chunks], dim=1)


@pytest.mark.parametrize(
    ("total", "counts", "joins"),
    [
        (65, (65,), ()),
        (65 + 48, (65, 48), (65,)),
        (65 + 3 * 48, (65, 48, 48, 48), (65, 113, 161)),
        (66, (65, 1), (65,)),
        (100, (65, 35), (65,)),
        (1, (1,), ()),
        (30, (30,), ()),
    ],
)
def test_frame_counts(model: LongtakeLlama, total: int, counts: tuple, joins: tuple):
    extension = Extension(total_frames=total)
    assert extension.new_frames == counts
    assert extension.joins == joins
    chunks = run(model, extension)
    assert tuple(chunk.frames_BFHWC.shape[1] for chunk in chunks) == counts
    assert tuple(chunk.start_frame for chunk in chunks if chunk.is_join) == joins
    assert video(chunks).shape == (2, total, 8, 16, 3)
    assert video(chunks).dtype == torch.uint8


@pytest.mark.timeout(60)
def test_the_windows_of_eight_hours_are_counted_in_one_go():
    extension = Extension(total_frames=8 * 3600 * 24, window_frames=9, reencode_frames=5)
    firsts = extension.first_frames
    assert firsts[:4] == (0, 9, 13, 17)
    assert len(firsts) == len(extension.new_frames) == 1 + (8 * 3600 * 24 - 9 + 3) // 4
    assert firsts[-1] + extension.new_frames[-1] == extension.total_frames
    assert extension.joins == firsts[1:]


@pytest.mark.parametrize("total", [65, 113, 100, 30])
def test_progress_knows_the_tokens(model: LongtakeLlama, total: int):
    extension = Extension(total_frames=total)
    steps: list[int] = []
    chunks = extend(
        model,
        BrightnessTokenizer(),
        [[Cue([1])]],
        extension=extension,
        height=1,
        width=2,
        sampling=Sampling(top_k=6),
        seeds=[1],
        on_token=steps.append,
    )
    assert len(list(chunks)) == len(extension.new_frames)
    assert len(steps) == extension.video_tokens(BrightnessTokenizer.spec, 1 * 2)


def test_last_frames_open_the_next_window_and_are_dropped(model: LongtakeLlama):
    tokenizer = BrightnessTokenizer()
    extension = Extension(total_frames=25 + 2 * 12, window_frames=25, reencode_frames=13)
    chunks = run(model, extension, tokenizer)
    frames = video(chunks)
    assert [pixels.shape[2] for pixels in tokenizer.decoded] == [25, 25, 25]
    for join, encoded in zip(extension.joins, tokenizer.encoded, strict=True):
        # What is encoded is what was handed out just before the join ...
        handed_out = frames[:, join - 13 : join].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        torch.testing.assert_close(encoded, handed_out)
    for chunk, decoded in zip(chunks[1:], tokenizer.decoded[1:], strict=True):
        # ... and of the new window only what lies beyond the overlap is handed out.
        new = ((decoded[:, :, 13:] + 1) * 127.5).round().to(torch.uint8)
        assert torch.equal(chunk.frames_BFHWC, new.permute(0, 2, 3, 4, 1))


@pytest.mark.parametrize("strategy", ["naive", "re-encode"])
@pytest.mark.parametrize(("overlap", "latents"), [(13, 4), (21, 6), (1, 1)])
def test_what_opens_the_next_window(
    model: LongtakeLlama,
    monkeypatch: pytest.MonkeyPatch,
    strategy: Literal["naive", "re-encode"],
    overlap: int,
    latents: int,
):
    windows: list[tuple[Tensor | None, Tensor]] = []

    def spy(*args: Any, prefix_codes: Tensor | None, **settings: Any) -> Tensor:
        made = generate_tokens(*args, prefix_codes=prefix_codes, **settings)
        windows.append((prefix_codes, made))
        return made

    monkeypatch.setattr(extension_module, "generate_tokens", spy)
    tokenizer = BrightnessTokenizer()
    extension = Extension(
        total_frames=60, window_frames=25, reencode_frames=overlap, strategy=strategy
    )
    chunks = run(model, extension, tokenizer)
    assert tuple(chunk.frames_BFHWC.shape[1] for chunk in chunks) == extension.new_frames
    assert len(windows) > 2
    for (_, before), (prefix, _) in pairwise(windows):
        assert prefix is not None
        same = torch.equal(prefix, before[:, -latents:])
        assert same == (strategy == "naive")
    assert len(tokenizer.encoded) == (0 if strategy == "naive" else len(windows) - 1)


def test_overlap_longer_than_what_a_window_adds(model: LongtakeLlama):
    tokenizer = BrightnessTokenizer()
    extension = Extension(total_frames=25 + 4 * 4, window_frames=25, reencode_frames=21)
    chunks = run(model, extension, tokenizer)
    assert video(chunks).shape[1] == 41
    assert all(encoded.shape[2] == 21 for encoded in tokenizer.encoded)


def test_seeds_decide(model: LongtakeLlama):
    extension = Extension(total_frames=65 + 48)
    first = run(model, extension)
    assert torch.equal(video(first), video(run(model, extension)))
    other = run(model, extension, seeds=[11, 13])
    assert torch.equal(video(first)[0], video(other)[0])
    assert not torch.equal(video(first)[1], video(other)[1])


def test_each_window_has_its_own_randomness(model: LongtakeLlama, monkeypatch: pytest.MonkeyPatch):
    used: list[tuple[int, ...]] = []

    def spy(*args: Any, generator: list[torch.Generator], **settings: Any) -> Tensor:
        used.append(tuple(g.initial_seed() for g in generator))
        return generate_tokens(*args, generator=generator, **settings)

    monkeypatch.setattr(extension_module, "generate_tokens", spy)
    run(model, Extension(total_frames=65 + 2 * 48))
    assert used == [tuple(derive(seed, "clip", clip) for seed in SEEDS) for clip in range(3)]
    assert len(set(sum(used, ()))) == 6


CUES = [[Cue([1, 2]), Cue([3], 66), Cue([4, 5], 113)], [Cue([6]), Cue([7], 65)]]


def test_each_window_follows_the_prompt_in_force(
    model: LongtakeLlama, monkeypatch: pytest.MonkeyPatch
):
    used: list[list[list[int]]] = []

    def spy(model: LongtakeLlama, text_ids: list[list[int]], **settings: Any) -> Tensor:
        used.append(text_ids)
        return generate_tokens(model, text_ids, **settings)

    monkeypatch.setattr(extension_module, "generate_tokens", spy)
    chunks = run(model, Extension(total_frames=65 + 3 * 48), prompts=CUES)
    assert used == [[[1, 2], [6]], [[1, 2], [7]], [[4, 5], [7]], [[4, 5], [7]]]
    # up to the window that follows another prompt, the video is that of the first prompt alone
    alone = run(model, Extension(total_frames=65 + 3 * 48), prompts=[[c[0]] for c in CUES])
    assert torch.equal(video(chunks)[0, :113], video(alone)[0, :113])
    assert not torch.equal(video(chunks)[0, 113:161], video(alone)[0, 113:161])


def test_prompts_over_time_resume(model: LongtakeLlama):
    extension = Extension(total_frames=65 + 3 * 48)
    straight = run(model, extension, prompts=CUES)
    resumed = run(model, extension, prompts=CUES, after=straight[1])
    assert torch.equal(video([*straight[:2], *resumed]), video(straight))


@pytest.mark.parametrize("starts", [[], [1], [0, 5, 5], [0, 9, 3]])
def test_refuses_cues_that_do_not_ascend_from_0(starts: list[int]):
    with pytest.raises(ValueError, match="must start at 0 and ascend"):
        cue_in_force(starts, 0)


def test_drift_is_measured_between_what_is_handed_out(model: LongtakeLlama):
    extension = Extension(total_frames=25 + 12 + 5, window_frames=25, reencode_frames=13)
    chunks = run(model, extension)
    frames = video(chunks).double()
    assert chunks[0].join_colour_drift_B is None
    for chunk, join in zip(chunks[1:], extension.joins, strict=True):
        before = frames[:, join - 13 : join].mean(dim=(1, 2, 3))
        after = frames[:, join : join + 13][:, : chunk.frames_BFHWC.shape[1]].mean(dim=(1, 2, 3))
        torch.testing.assert_close(chunk.join_colour_drift_B, (after - before).norm(dim=-1))


def test_matched_colours_join_and_open_the_next_window(model: LongtakeLlama):
    tokenizer = BrightnessTokenizer()
    settings: dict[str, Any] = {
        "total_frames": 25 + 3 * 12,
        "window_frames": 25,
        "reencode_frames": 13,
    }
    plain = run(model, Extension(**settings))
    matched = run(model, Extension(**settings, match_colour=True), tokenizer)
    assert torch.equal(plain[0].frames_BFHWC, matched[0].frames_BFHWC)

    def drifts(chunks: list[Chunk]) -> Tensor:
        found = [chunk.join_colour_drift_B for chunk in chunks[1:]]
        return torch.stack([drift_B for drift_B in found if drift_B is not None])

    assert len(drifts(plain)) == len(drifts(matched)) == 3

    assert drifts(plain).max() > 10
    assert drifts(matched).mean() < drifts(plain).mean() / 3
    for chunk, encoded in zip(matched, tokenizer.encoded, strict=False):
        shown = chunk.tail_BFHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        torch.testing.assert_close(encoded, shown)


def test_batched_equals_single(model: LongtakeLlama):
    extension = Extension(total_frames=65 + 48)
    together = video(run(model, extension))
    assert torch.equal(together[:1], video(run(model, extension, rows=slice(0, 1))))
    assert torch.equal(together[1:], video(run(model, extension, rows=slice(1, 2))))


@pytest.mark.parametrize("strategy", ["naive", "re-encode"])
def test_resume_after_any_chunk_equals_the_straight_run(
    model: LongtakeLlama, strategy: Literal["naive", "re-encode"]
):
    extension = Extension(total_frames=65 + 2 * 48 + 10, strategy=strategy)
    straight = run(model, extension)
    for done in range(len(straight)):
        resumed = run(model, extension, after=straight[done])
        assert len(resumed) == len(straight) - done - 1
        assert torch.equal(video([*straight[: done + 1], *resumed]), video(straight))


def test_frames_come_window_by_window(model: LongtakeLlama):
    tokenizer = BrightnessTokenizer()
    chunks = extend(
        model,
        tokenizer,
        TEXT,
        extension=Extension(total_frames=10_000),
        height=1,
        width=2,
        sampling=Sampling(top_k=6),
        seeds=SEEDS,
    )
    next(chunks)
    next(chunks)
    assert len(tokenizer.decoded) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reencode_frames": 65}, "must be less than window_frames 65"),
        ({"reencode_frames": 69}, "must be less than window_frames 65"),
        ({"total_frames": 0}, "greater than or equal to 1"),
        ({"strategy": "none"}, "'re-encode' or 'naive'"),
    ],
)
def test_refuses_settings(settings: dict, words: str):
    with pytest.raises(ValidationError, match=words):
        Extension(**{"total_frames": 113, **settings})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reencode_frames": 16}, "reencode_frames: 16 frames .* nearest that do: 13 and 17"),
        ({"reencode_frames": 0}, "reencode_frames: 0 frames"),
        ({"window_frames": 64}, "window_frames: 64 frames .* nearest that do: 61 and 65"),
    ],
)
def test_refuses_windows_that_the_codec_does_not_make(
    model: LongtakeLlama, settings: dict, words: str
):
    extension = Extension(**{"total_frames": 113, **settings})
    with pytest.raises(ValueError, match=words):
        extension.check(BrightnessTokenizer.spec)
    with pytest.raises(ValueError, match=words):
        run(model, extension)


class ChunkTokenizer(BrightnessTokenizer):
    """Chunks of 3 frames become 2 latents, each chunk by itself."""

    spec = CodecSpec(
        time=ChunkedFrames(chunk_frames=3, chunk_latents=2),
        space_stride=8,
        latent=Codes(codebook_size=24),
    )

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        self.encoded.append(x_BCTHW)
        blocks = torch.nn.functional.avg_pool2d(x_BCTHW.mean(dim=1), 8).unflatten(1, (-1, 3))
        return ((blocks[:, :, :2] + 1) / 2 * (self.codes - 1)).round().long().flatten(1, 2)

    def decode(self, ids_BTHW: Tensor, /) -> Tensor:
        level = (ids_BTHW.float() / (self.codes - 1) * 2 - 1).unflatten(1, (-1, 2))
        frames = torch.cat((level, level[:, :, -1:]), dim=2).flatten(1, 2)[:, None]
        pixels = frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
        self.decoded.append(pixels.expand(-1, 3, -1, -1, -1))
        return self.decoded[-1]


def test_a_codec_of_chunks_extends_too(model: LongtakeLlama):
    tokenizer = ChunkTokenizer()
    extension = Extension(total_frames=12 + 6 + 4, window_frames=12, reencode_frames=6)
    chunks = run(model, extension, tokenizer)
    assert video(chunks).shape[1] == 22
    assert [encoded.shape[2] for encoded in tokenizer.encoded] == [6, 6]
    assert extension.window_latents(tokenizer.spec) == (8, 8, 8)
    assert extension.video_tokens(tokenizer.spec, 2) == (8 + 4 + 4) * 2


def test_refuses_a_missing_seed(model: LongtakeLlama):
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        run(model, Extension(total_frames=1), seeds=[1])
