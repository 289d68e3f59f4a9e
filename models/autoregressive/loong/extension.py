"""Generation of videos longer than the training window, by re-encoding (Loong, sec. 3.3).

```
clip 0   [ text | 65 frames generated                     ]
clip 1            last 17 frames, encoded anew -> [ text | 17 known | 48 generated ]
clip 2                                             last 17 frames of clip 1 -> [ text | 17 | 48 ]
```

The tokens of a clip's last frames depend on the frames before them, which the next clip does not
have. Decoding them and encoding the pixels as the start of a fresh clip gives the tokens that the
model knows from training. The strategy "naive" leaves that out, for the paper's ablation (Fig. 5):

```
clip 0   latent     0 | 1 ... 12   13   14   15   16
clip 1   latent                0    1    2    3    4 | 5 ... 16      the same tokens, n = 17
```

With Loong's tokenizer a clip's first latent frame covers one frame and each later one four, so
latent 12, made for frames 45 to 48, now stands where a clip's first frame stands and is decoded to
one frame, in the place of frame 48. The counts of frames are those of re-encoding; what the overlap
decodes to is dropped.

Shapes: B batch, F video frames, C colours, T H W latent frames, rows and columns.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from infra.config import Section, refuse_ignored
from infra.seeding import derive
from models.autoregressive.loong.colour import colour_distance, match_colour
from models.autoregressive.loong.generate import generate_tokens
from models.autoregressive.loong.model import LongtakeLlama
from models.autoregressive.sampling import Sampling
from models.codec import CodecSpec, VideoCodec
from models.pixels import to_frames, to_pixels

Strategy = Literal["re-encode", "naive"]


class Extension(Section):
    """How a long video is cut into windows."""

    total_frames: Annotated[int, Field(ge=1)]
    """Frames of the finished video; the last window is shortened to it."""
    window_frames: int = 65
    """Frames of one window: the longest clip that the model was trained on."""
    reencode_frames: int = 17
    """n, the last frames that open the next window. The paper leaves n open."""
    strategy: Strategy = "re-encode"
    """How known frames enter the next window: encoded anew, or as the tokens that they are."""
    match_colour: bool = False
    """Give each window the colours that the video had before it; see `colour.match_colour`."""

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        if self.reencode_frames >= self.window_frames and self.total_frames > self.window_frames:
            raise ValueError(
                f"reencode_frames {self.reencode_frames} must be less than window_frames "
                f"{self.window_frames}: a window must add frames"
            )
        if not self.joins:
            refuse_ignored(self, "a single window", "strategy", "match_colour")
        return self

    @property
    def new_frames(self) -> tuple[int, ...]:
        """Frames that each window adds to the video; their sum is `total_frames`."""
        first = min(self.total_frames, self.window_frames)
        rest = self.total_frames - first
        step = self.window_frames - self.reencode_frames
        return (first, *(min(step, rest - done) for done in range(0, rest, step)))

    @property
    def first_frames(self) -> tuple[int, ...]:
        """Index of the first frame that each window adds."""
        return tuple(accumulate(self.new_frames[:-1], initial=0))

    @property
    def joins(self) -> tuple[int, ...]:
        """Index of the first frame after each join."""
        return self.first_frames[1:]

    def check(self, codec: CodecSpec) -> None:
        """Refuse windows that the codec does not make.

        Raises:
            ValueError: Names the key, its value and the nearest that fit.
        """
        for name in ("window_frames", "reencode_frames"):
            try:
                codec.check_frames(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def window_latents(self, codec: CodecSpec) -> tuple[int, ...]:
        """Latent frames of each window, those of the re-encoded frames among them."""
        first, *later = self.new_frames
        frames = (first, *(self.reencode_frames + new for new in later))
        return tuple(codec.time.latents(count) for count in frames)

    def video_tokens(self, codec: CodecSpec, tokens_per_latent: int) -> int:
        """Tokens that have to be generated for one video, for a progress bar."""
        latents = self.window_latents(codec)
        known = codec.time.latents(self.reencode_frames) * (len(latents) - 1)
        return (sum(latents) - known) * tokens_per_latent


@dataclass(frozen=True)
class Cue:
    """A prompt, and from where on in the video it is in force.

    Attributes:
        text_ids: The prompt.
        from_frame: Index in the whole video. The first cue of a video starts at 0.
    """

    text_ids: Sequence[int]
    from_frame: int = 0


def cue_in_force(from_frames: Sequence[int], frame: int) -> int:
    """Index of the cue in force at a frame: the last one that starts there or before.

    Args:
        from_frames: Where each cue starts: 0, then ascending.
        frame: Index in the whole video; a window asks for its first new frame.

    Raises:
        ValueError: If the first cue does not start at 0, or a later one not after the one before.
    """
    starts = list(from_frames)
    if starts[:1] != [0] or any(b <= a for a, b in pairwise(starts)):
        raise ValueError(f"cues start at frames {starts}; they must start at 0 and ascend")
    return bisect_right(starts, frame) - 1


@dataclass(frozen=True)
class Chunk:
    """The frames that one window adds.

    Attributes:
        clip: Index of the window; from 1 on, the chunk's first frame is a join.
        start_frame: Index of the first frame in the whole video.
        frames_BFHWC: uint8 RGB, on the CPU.
        tail_BFHWC: uint8, the last `reencode_frames` frames of the video so far (in the last
            chunk perhaps fewer): all that the next window needs when it is re-encoded.
        tail_codes_BTHW: The codes of the window's last latent frames, as many as `reencode_frames`
            has: all that the next window needs when it is naive.
        join_colour_drift_B: Distance of the mean colours of the `reencode_frames` frames before
            the join and as many of the chunk, 0..442; None in the first chunk.
    """

    clip: int
    start_frame: int
    frames_BFHWC: Tensor
    tail_BFHWC: Tensor
    tail_codes_BTHW: Tensor
    join_colour_drift_B: Tensor | None

    @property
    def is_join(self) -> bool:
        """Whether the chunk continues a window before it."""
        return self.clip > 0


def extend(
    model: LongtakeLlama,
    codec: VideoCodec,
    prompts: Sequence[Sequence[Cue]],
    *,
    extension: Extension,
    height: int,
    width: int,
    sampling: Sampling,
    seeds: Sequence[int],
    after: Chunk | None = None,
    on_token: Callable[[int], None] | None = None,
) -> Iterator[Chunk]:
    """Generate videos window by window, handing out frames as they come.

    Memory holds one window, however long the video. The frames are rounded to 8 bits before they
    are encoded anew, so what opens the next window is what was handed out. A killed run continues
    from its last chunk to the bit. The randomness of window i of a video comes from
    `derive(seed, "clip", i)` alone.

    Args:
        model: The decoder.
        codec: The one whose codes the model was trained on; on the model's device.
        prompts: The cues of each video. A window follows the one in force at its first new frame,
            and that one alone.
        extension: Lengths.
        height: Rows of a latent frame.
        width: Columns of a latent frame.
        sampling: How a token is drawn.
        seeds: One per video.
        after: The last chunk of an earlier run with the same arguments; None starts afresh.
        on_token: Called after each step with the tokens generated so far in the window.

    Yields:
        One chunk per window; together `extension.total_frames` frames.

    Raises:
        ValueError: If there is not one seed per prompt, cues do not ascend from 0, the codec makes
            no such windows, or what `generate_tokens` refuses.
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one seed each")
    extension.check(codec.spec)
    latents = extension.window_latents(codec.spec)
    starts = [[cue.from_frame for cue in cues] for cues in prompts]
    keep = extension.reencode_frames
    last = after
    counts, first_frames = extension.new_frames, extension.first_frames
    for clip in range(0 if after is None else after.clip + 1, len(counts)):
        overlap = 0 if clip == 0 else keep
        prefix = None if last is None else _prefix(model, codec, last, extension)
        first_frame = first_frames[clip]
        codes = generate_tokens(
            model,
            [
                cues[cue_in_force(frames, first_frame)].text_ids
                for cues, frames in zip(prompts, starts, strict=True)
            ],
            latent_frames=latents[clip],
            height=height,
            width=width,
            sampling=sampling,
            generator=[_generator(seed, clip) for seed in seeds],
            prefix_codes=prefix,
            on_token=on_token,
        )
        frames = _decode(codec, codes)[:, overlap : overlap + counts[clip]]
        drift = None
        if last is not None:
            if extension.match_colour:
                frames = match_colour(frames, last.tail_BFHWC)
            drift = colour_distance(last.tail_BFHWC, frames[:, :keep])
        seen = frames if last is None else torch.cat((last.tail_BFHWC, frames), dim=1)
        last = Chunk(
            clip,
            first_frame,
            frames,
            seen[:, -keep:].clone(),
            codes[:, -codec.spec.time.latents(keep) :].cpu(),
            drift,
        )
        yield last


def _prefix(model: LongtakeLlama, codec: VideoCodec, last: Chunk, extension: Extension) -> Tensor:
    if extension.strategy == "naive":
        return last.tail_codes_BTHW
    with torch.no_grad():
        return codec.encode(to_pixels(last.tail_BFHWC, model.lm_head.weight.device))


def _generator(seed: int, clip: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, "clip", clip))


@torch.no_grad()
def _decode(codec: VideoCodec, codes_BTHW: Tensor) -> Tensor:
    """Return the frames of codes, (B, F, H, W, C) uint8 on the CPU."""
    pixels_BCFHW = codec.decode(codes_BTHW)
    found, expected = pixels_BCFHW.shape[2], codec.spec.frames_of_latents(codes_BTHW.shape[1])
    assert found == expected, f"decoded {found} frames, expected {expected}"
    return torch.from_numpy(to_frames(pixels_BCFHW))
