"""Codec specs: which frame counts fit each rule, and shapes there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codec import CausalFrames, Channels, ChunkedFrames, CodecSpec, Codes

CAUSAL = CodecSpec(time=CausalFrames(), space_stride=8, latent=Codes(codebook_size=512))
CHUNKS_17 = CodecSpec(
    time=ChunkedFrames(chunk_frames=17, chunk_latents=5),
    space_stride=8,
    latent=Channels(channels=4),
)
CHUNKS_16 = CodecSpec(
    time=ChunkedFrames(chunk_frames=16, chunk_latents=5),
    space_stride=8,
    latent=Channels(channels=4),
)
SPECS = [CAUSAL, CHUNKS_17, CHUNKS_16]


def fits(spec: CodecSpec, frames: int) -> bool:
    try:
        spec.check_frames(frames)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("spec", SPECS)
@given(frames=st.integers(1, 2000))
def test_latents_decode_to_the_frames_that_they_came_from(spec: CodecSpec, frames: int):
    if fits(spec, frames):
        assert spec.frames_of_latents(spec.latents_of_frames(frames)) == frames


@pytest.mark.parametrize("spec", SPECS)
@given(frames=st.integers(1, 2000))
def test_the_two_counts_named_are_the_nearest_that_fit(spec: CodecSpec, frames: int):
    low, high = spec.time.nearest(frames)
    assert fits(spec, low)
    assert fits(spec, high)
    assert not any(fits(spec, count) for count in range(low + 1, high))
    assert low <= frames < high or frames < low == spec.frames_of_latents(spec.time.latents(1))


@pytest.mark.parametrize(
    ("spec", "latents"),
    [
        (CAUSAL, {1: 1, 17: 5, 65: 17}),
        (CHUNKS_17, {17: 5, 51: 15, 68: 20, 102: 30, 119: 35, 136: 40}),
        (CHUNKS_16, {16: 5, 1440: 450}),
    ],
)
def test_latents_of_the_papers(spec: CodecSpec, latents: dict[int, int]):
    assert {frames: spec.latents_of_frames(frames) for frames in latents} == latents


@pytest.mark.parametrize(
    ("spec", "frames", "named"),
    [
        (CAUSAL, 68, "65 and 69"),
        (CAUSAL, 119, "117 and 121"),
        (CHUNKS_17, 65, "51 and 68"),
        (CHUNKS_16, 102, "96 and 112"),
        (CHUNKS_17, 1, "17"),
    ],
)
def test_a_count_that_does_not_fit_is_refused_with_the_nearest(
    spec: CodecSpec, frames: int, named: str
):
    with pytest.raises(ValueError, match=rf"{frames} frames .* do: {named}$"):
        spec.latents_of_frames(frames)


def test_part_of_a_chunk_is_refused():
    with pytest.raises(ValueError, match="chunks of 5"):
        CHUNKS_17.frames_of_latents(7)


def test_sizes_must_divide():
    assert CAUSAL.latent_shape(17, 64, 128) == (5, 8, 16)
    with pytest.raises(ValueError, match="multiples of 8"):
        CAUSAL.latent_shape(17, 64, 130)


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32")]
)
def test_codes_are_kept_in_the_smallest_type(size: int, dtype: str):
    assert Codes(codebook_size=size).dtype == dtype


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_survives_json(spec: CodecSpec):
    assert CodecSpec.model_validate_json(spec.model_dump_json()) == spec
