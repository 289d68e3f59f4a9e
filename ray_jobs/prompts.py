"""Prompts: a text, or several over time, and the windows of a video that follow each of them."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from infra.config import Section
from infra.errors import UserError


class TimedPrompt(Section):
    """A prompt that comes into force in the course of a video."""

    text: str
    from_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The windows whose first new frame is at this time or later follow it, up to the next one."""


class PromptsOverTime(Section):
    """Several prompts for one video: dense captions."""

    over_time: Annotated[tuple[TimedPrompt, ...], Field(min_length=1)]
    """The first from_s is 0, the others ascend."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        starts = [prompt.from_s for prompt in self.over_time]
        if starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
            raise ValueError(f"from_s {starts}: the first must be 0 and the others ascend")
        return self


_NAMED = 8

Prompt = str | PromptsOverTime


def over_time(prompt: Prompt) -> tuple[TimedPrompt, ...]:
    """Return a prompt's texts, the first from 0 s on."""
    return (TimedPrompt(text=prompt, from_s=0),) if isinstance(prompt, str) else prompt.over_time


def schedule(
    prompts: Sequence[Prompt], first_frames: Sequence[int], total_frames: int, fps: float
) -> list[str]:
    """Say in lines for people which windows follow which prompt.

    Args:
        prompts: as configured.
        first_frames: index of the first frame that each window adds to a video.
        total_frames: frames of a video.
        fps: frames per second of the videos.

    Raises:
        UserError: no window begins while a prompt is in force.
    """
    lines = []
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            lines.append(f"prompt: {prompt}")
            continue
        starts = [round(text.from_s * fps) for text in prompt.over_time]
        edges = [*starts[1:], total_frames]
        for place, (text, start, end) in enumerate(
            zip(prompt.over_time, starts, edges, strict=True)
        ):
            window, after = bisect_left(first_frames, start), bisect_left(first_frames, end)
            if window >= after:
                near = first_frames[max(window - _NAMED // 2, 0) :][:_NAMED]
                begins = ", ".join(f"{first / fps:g}" for first in near)
                raise UserError(
                    f"prompts.{number}.over_time.{place}.from_s: {text.from_s:g}: no window begins "
                    f"while this prompt is in force; near it, windows begin at {begins} s"
                )
            lines.append(
                f"prompt {number} from {text.from_s:g} s, windows {window} to {after - 1}: "
                f"{text.text}"
            )
    return lines
