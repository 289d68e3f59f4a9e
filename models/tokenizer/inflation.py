"""Inflation: weights of an image tokenizer as the start of a video tokenizer.

Two tokenizers, alike but for `temporal_kernels`: of the image one they may be 1 where those of the
video one are 3. A kernel of one frame becomes the last of three taps, the other two are zero, so
the convolution does to each frame what it did to an image. Its padding, which repeats the first
frame, only ever meets zeros. This alone (`trained_on="videos"`) gives, for images and videos:

    video.encode(x) = image.encode(x)        video.decode(ids) = image.decode(ids)

The levels that halve or double time have more to them in the image tokenizer too: three taps, of
which only the sum counts on images (an image fills the kernel with copies of itself), and a first
frame of two that is dropped, whose weights no image trains. For `trained_on="images"` the sum of
all taps goes into the last one, and the dropped frame gets the weights of the kept one. Images are
coded as before, and a video frame by frame as images:

    video.encode(x)[k] = image.encode(frame 4k of x)
    video.decode(ids)[t] = image.decode(ids[ceil(t / 4)])
"""

from collections.abc import Mapping
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from models.tokenizer.config import LEVELS, TokenizerConfig
from models.tokenizer.layers import CausalConv3d, Upsample
from models.tokenizer.model import VideoTokenizer

TrainedOn = Literal["images", "videos"]
TIME = 2
"""Axis of time in a kernel."""


def check_inflates(image: TokenizerConfig, video: TokenizerConfig) -> None:
    """Refuse two configs that are not alike in all that shapes weights but `temporal_kernels`.

    Raises:
        ValueError: says the first key that differs.
    """
    for key in (
        *("channels", "channel_multipliers", "res_blocks", "middle_blocks", "groups"),
        "adaptive_norm",
    ):
        if getattr(image, key) != getattr(video, key):
            raise ValueError(f"{key} is {getattr(image, key)} there and {getattr(video, key)} here")
    for key in ("size", "dim"):
        there, here = getattr(image.codebook, key), getattr(video.codebook, key)
        if there != here:
            raise ValueError(f"codebook.{key} is {there} there and {here} here")
    for level in range(LEVELS):
        if image.temporal_kernels[level] > video.temporal_kernels[level]:
            raise ValueError(
                f"temporal_kernels is {image.temporal_kernels} there and {video.temporal_kernels} "
                "here; it can only grow"
            )


@torch.no_grad()
def inflate(
    state: Mapping[str, Tensor],
    image: TokenizerConfig,
    video: TokenizerConfig,
    trained_on: TrainedOn = "images",
) -> dict[str, Tensor]:
    """Return the state of a video tokenizer that does to frames what an image tokenizer does.

    Args:
        state: state dict of the image tokenizer.
        image: its config.
        video: the config of the other.
        trained_on: what the image tokenizer has seen: whether its taps in time mean something.

    Raises:
        ValueError: the configs do not fit; see `check_inflates`.
    """
    check_inflates(image, video)
    inflated = {key: tensor.clone() for key, tensor in state.items()}
    with torch.device("meta"):
        model = VideoTokenizer(video)
    for name, layer in model.named_modules():
        if isinstance(layer, CausalConv3d):
            key = f"{name}.conv.weight"
            weight = inflated[key]
            if trained_on == "images":
                weight = weight.sum(dim=TIME, keepdim=True)
            inflated[key] = _last_tap(weight, layer.conv.kernel_size[0])
        elif isinstance(layer, Upsample) and trained_on == "images":
            for part in ("weight", "bias"):
                key = f"{name}.conv.conv.{part}"
                inflated[key] = _kept_frame(inflated[key], layer.stride[0])
    return inflated


def _kept_frame(tensor: Tensor, time: int) -> Tensor:
    """Give all frames that one becomes the weights of the last, the one that an image keeps."""
    frames = rearrange(tensor, "(i o) ... -> i o ...", i=time)
    return rearrange(frames[-1:].expand_as(frames), "i o ... -> (i o) ...")


def _last_tap(weight: Tensor, taps: int) -> Tensor:
    """Put zeros before the taps that there are."""
    missing = taps - weight.shape[TIME]
    before = weight.new_zeros(*weight.shape[:TIME], missing, *weight.shape[TIME + 1 :])
    return torch.cat([before, weight], dim=TIME)
