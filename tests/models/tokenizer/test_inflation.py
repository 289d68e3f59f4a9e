"""An inflated tokenizer does to every frame of a video what the other does to an image."""

import pytest
import torch

from models.tokenizer import TokenizerConfig, VideoTokenizer
from models.tokenizer.inflation import check_inflates, inflate
from tests.models.tokenizer.test_model import ADAPTIVE, TINY, clip, tokenizer

IMAGE = TINY.model_copy(update={"temporal_kernels": (1, 1, 1, 1)})
LATENTS = 4


def inflated(
    image: VideoTokenizer, trained_on: str, video: TokenizerConfig = TINY
) -> VideoTokenizer:
    torch.manual_seed(9)
    model = VideoTokenizer(video)
    state = inflate(image.state_dict(), image.config, video, trained_on)  # type: ignore[arg-type]
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("kernels", [(3, 3, 3, 3), (1, 3, 1, 3)])
@pytest.mark.parametrize("frames", [1, 13])
def test_it_is_the_image_tokenizer_on_images_and_videos(
    frames: int, kernels: tuple[int, int, int, int], adaptive: bool
) -> None:
    config = IMAGE.model_copy(update={"adaptive_norm": adaptive})
    image, x = tokenizer(config).eval(), clip(frames)
    video = inflated(image, "videos", config.model_copy(update={"temporal_kernels": kernels}))
    torch.testing.assert_close(video.encoder(x), image.encoder(x))
    assert torch.equal(video.encode(x), image.encode(x))
    ids = image.encode(x)
    torch.testing.assert_close(video.decode(ids), image.decode(ids))


@torch.no_grad()
@pytest.mark.parametrize("config", [IMAGE, TINY, ADAPTIVE])
@pytest.mark.parametrize("frames", [1, 4 * LATENTS - 3])
def test_it_codes_every_frame_of_a_video_as_an_image(frames: int, config: TokenizerConfig) -> None:
    image, x = tokenizer(config).eval(), clip(frames)
    video = inflated(image, "images", config.model_copy(update={"temporal_kernels": (3,) * 4}))
    z = video.encoder(x)
    for latent in range(z.shape[2]):
        alone = image.encoder(x[:, :, 4 * latent : 4 * latent + 1])
        torch.testing.assert_close(z[:, :, latent : latent + 1], alone, atol=2e-5, rtol=1e-4)
    ids = video.encode(x)
    y = video.decode(ids)
    for frame in range(frames):
        latent = -(-frame // 4)
        alone = image.decode(ids[:, latent : latent + 1])
        torch.testing.assert_close(y[:, :, frame : frame + 1], alone, atol=2e-5, rtol=1e-4)


def test_the_new_taps_learn() -> None:
    video = inflated(tokenizer(IMAGE), "images").train()
    video(clip(5)).loss.backward()
    gradient = video.encoder.layers[1].conv1.conv.weight.grad  # type: ignore[union-attr]
    assert gradient[:, :, 0].any()  # type: ignore[index]
    assert gradient[:, :, 1].any()  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"channels": 16}, "channels is 8 there and 16 here"),
        ({"codebook": TINY.codebook.model_copy(update={"size": 32})}, "codebook.size is 64 there"),
        ({"res_blocks": (1, 1, 1, 2)}, "res_blocks"),
        ({"adaptive_norm": True}, "adaptive_norm is False there and True here"),
    ],
)
def test_another_model_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_inflates(IMAGE, TINY.model_copy(update=changes))
    with pytest.raises(ValueError, match="it can only grow"):
        check_inflates(TINY, IMAGE)
