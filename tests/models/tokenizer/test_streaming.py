"""Streaming equals the whole, at every way of cutting a clip, in memory that does not grow."""

from collections.abc import Iterator

import pytest
import torch

from models.tokenizer import VideoTokenizer
from models.tokenizer.layers import Stream
from tests.models.tokenizer.test_model import ADAPTIVE, TINY, clip, tokenizer

LATENTS = 5
CONFIGS = {
    "video": TINY,
    "mixed": TINY.model_copy(update={"temporal_kernels": (1, 3, 1, 3)}),
    "adaptive": ADAPTIVE,
}


def cuts(latents: int) -> list[list[int]]:
    """All ways to cut so many latent frames into chunks."""
    if not latents:
        return [[]]
    return [[size, *rest] for size in range(1, latents + 1) for rest in cuts(latents - size)]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> VideoTokenizer:
    return tokenizer(CONFIGS[request.param]).eval()


def run_network(network: torch.nn.Module, chunks: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    stream = Stream()
    for chunk in chunks:
        yield network(chunk, stream)
        stream.first = False


@torch.no_grad()
@pytest.mark.parametrize("sizes", cuts(LATENTS), ids=str)
def test_streaming_equals_the_whole(model: VideoTokenizer, sizes: list[int]) -> None:
    x = clip(4 * LATENTS - 3, batch=2)
    frames = list(x.split([4 * sizes[0] - 3, *(4 * size for size in sizes[1:])], dim=2))
    z = torch.cat(list(run_network(model.encoder, frames)), dim=2)
    torch.testing.assert_close(z, model.encoder(x), atol=1e-5, rtol=1e-5)
    ids = list(model.encode_stream(frames))
    assert [part.shape[1] for part in ids] == sizes
    assert torch.equal(torch.cat(ids, dim=1), model.encode(x))
    y = list(model.decode_stream(ids))
    assert [part.shape[2] for part in y] == [part.shape[2] for part in frames]
    whole = model.decode(torch.cat(ids, dim=1))
    torch.testing.assert_close(torch.cat(y, dim=2), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_remembered_does_not_grow(model: VideoTokenizer) -> None:
    for network, chunk in (
        (model.encoder, clip(4)),
        (model.decoder, torch.randn(1, TINY.codebook.dim, 1, 2, 2)),
    ):
        stream, sizes = Stream(), []
        for number in range(4):
            network(clip(1) if network is model.encoder and not number else chunk, stream)
            stream.first = False
            kept = stream.frames.values()
            assert all(frames.shape[2] <= 2 for frames in kept)
            sizes.append(sum(frames.untyped_storage().nbytes() for frames in kept))
        assert len(set(sizes)) == 1


def test_two_clips_may_be_streamed_at_once(model: VideoTokenizer) -> None:
    x = clip(9)
    parts = [x[:, :, :5], x[:, :, 5:]]
    other = [-part for part in parts]
    both = zip(model.encode_stream(parts), model.encode_stream(other), strict=True)
    ids = torch.cat([first for first, _ in both], dim=1)
    assert torch.equal(ids, model.encode(x))


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (clip(5), "5 frames: expected 4k"),
        (clip(4, batch=2), "first chunk"),
        (clip(4, size=24), "first chunk"),
        (clip(4) * 2, r"\[-1, 1\]"),
    ],
)
def test_a_chunk_that_does_not_follow_is_refused(later: torch.Tensor, says: str) -> None:
    chunks = tokenizer().encode_stream([clip(1), later])
    next(chunks)
    with pytest.raises(ValueError, match=says):
        next(chunks)


def test_the_first_chunk_is_refused_as_a_clip_is() -> None:
    with pytest.raises(ValueError, match="1 and 5"):
        next(tokenizer().encode_stream([clip(4)]))


def test_ids_of_another_grid_are_refused() -> None:
    ids = [torch.zeros(1, 1, 2, 2, dtype=torch.long), torch.zeros(1, 1, 2, 3, dtype=torch.long)]
    with pytest.raises(ValueError, match="first chunk"):
        list(tokenizer().decode_stream(ids))
