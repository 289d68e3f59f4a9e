"""Filters: one file each, with a config, a ``score`` and a ``verdict`` (a reason, or None to keep).

Scores are stored for every clip, kept or not, so a threshold can be moved without decoding again.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from data_prep.filters import (
    aesthetic,
    aspect,
    black,
    blur,
    brightness,
    duration,
    frame_rate,
    letterbox,
    motion,
    resolution,
    safety,
    similarity,
    text,
)
from data_prep.filters.aesthetic import AestheticConfig
from data_prep.filters.aspect import AspectConfig
from data_prep.filters.black import BlackConfig
from data_prep.filters.blur import BlurConfig
from data_prep.filters.brightness import BrightnessConfig
from data_prep.filters.duration import DurationConfig
from data_prep.filters.frame_rate import FrameRateConfig
from data_prep.filters.letterbox import LetterboxConfig
from data_prep.filters.motion import MotionConfig
from data_prep.filters.resolution import ResolutionConfig
from data_prep.filters.safety import SafetyConfig
from data_prep.filters.similarity import SimilarityConfig
from data_prep.filters.text import TextConfig
from data_prep.types import Scores
from infra.config import Section

_SCORED = "once ray_jobs.score has run"


class FiltersConfig(Section):
    """The thresholds of all filters, in the order in which they are asked."""

    score_only: bool = False
    """Keep every clip and store its scores. Long shots are split all the same."""
    resolution: ResolutionConfig = Field(default_factory=ResolutionConfig)
    """Size of the video."""
    aspect: AspectConfig = Field(default_factory=AspectConfig)
    """Shape of the video."""
    frame_rate: FrameRateConfig = Field(default_factory=FrameRateConfig)
    """Slide shows and slow motion."""
    duration: DurationConfig = Field(default_factory=DurationConfig)
    """Clip length; also how long shots are split."""
    black: BlackConfig = Field(default_factory=BlackConfig)
    """Clips that fade or are black."""
    brightness: BrightnessConfig = Field(default_factory=BrightnessConfig)
    """Darkness."""
    letterbox: LetterboxConfig = Field(default_factory=LetterboxConfig)
    """Black bars."""
    motion: MotionConfig = Field(default_factory=MotionConfig)
    """Stills and restless footage."""
    blur: BlurConfig = Field(default_factory=BlurConfig)
    """Focus."""
    safety: SafetyConfig = Field(default_factory=SafetyConfig)
    """Not safe for work; this and the next three once `ray_jobs.score` has run."""
    text: TextConfig = Field(default_factory=TextConfig)
    """Title cards and slides."""
    similarity: SimilarityConfig = Field(default_factory=SimilarityConfig)
    """Captions that say something else."""
    aesthetic: AestheticConfig = Field(default_factory=AestheticConfig)
    """Beauty."""


def reasons(scores: Scores, config: FiltersConfig) -> tuple[str, ...]:
    """Return every reason against a clip, in a fixed order; empty to keep it.

    First what holds for the whole video (resolution, aspect, frame rate), then length, then the
    pictures from the plainest fault to the most doubtful scale (black, brightness, letterbox,
    motion, blur), and last what models say of them (safety, text, similarity, aesthetic).
    """
    if config.score_only:
        return ()
    verdicts = (
        resolution.verdict(scores.short_side_px, config.resolution),
        aspect.verdict(scores.aspect_ratio, config.aspect),
        frame_rate.verdict(scores.fps, config.frame_rate),
        duration.verdict(scores.duration_s, config.duration),
        black.verdict(scores.black_share, config.black),
        brightness.verdict(scores.brightness, config.brightness),
        letterbox.verdict(scores.letterbox_share, config.letterbox),
        motion.verdict(scores.motion, config.motion),
        blur.verdict(scores.sharpness, config.blur),
        safety.verdict(scores.unsafe, config.safety),
        text.verdict(scores.text_area, config.text),
        similarity.verdict(scores.caption_similarity, config.similarity),
        aesthetic.verdict(scores.aesthetic, config.aesthetic),
    )
    return tuple(reason for reason in verdicts if reason is not None)


def verdict(scores: Scores, config: FiltersConfig) -> str | None:
    """Return the first of a clip's :func:`reasons`, or None to keep it."""
    return next(iter(reasons(scores, config)), None)


def verdict_on_video(clips: Sequence[str | None]) -> str | None:
    """Return the commonest verdict on a video's clips, or None when one of them is kept.

    Args:
        clips: the verdict on each clip; at least one.
    """
    rejected = Counter(reason for reason in clips if reason is not None)
    if rejected.total() < len(clips):
        return None
    # Ties go by name, so that the reason does not depend on the order of clips.
    return min(rejected, key=lambda reason: (-rejected[reason], reason))


def describe(config: FiltersConfig) -> list[str]:
    """Return one line a filter for people, in the order in which they are asked."""
    lines = [
        f"filter resolution: short side of at least {config.resolution.min_short_side_px} px",
        f"filter aspect: width/height {config.aspect.min_ratio:g} to {config.aspect.max_ratio:g}",
        f"filter frame rate: {config.frame_rate.min_fps:g} to {config.frame_rate.max_fps:g} "
        "frames/s",
        f"filter duration: {config.duration.min_s:g} to {config.duration.max_s:g} s (longer "
        f"shots are split, {_stride(config.duration)}), {config.duration.trim_s:g} s trimmed",
        f"filter black: at most {config.black.max_share:g} of the samples",
        f"filter brightness: mean luma of at least {config.brightness.min_luma:g} of 255",
        f"filter letterbox: bars over at most {config.letterbox.max_share:g} of the frame",
        f"filter motion: {config.motion.min_score:g} to {config.motion.max_score:g} of 255",
        f"filter blur: sharpness of at least {config.blur.min_sharpness:g}",
        f"filter safety: {_SCORED}, probability of at most {config.safety.max_unsafe:g}",
        f"filter text: {_SCORED}, over at most {config.text.max_area:g} of the frame",
        f"filter similarity: {_SCORED}, cosine of at least {config.similarity.min_cosine:g}",
        f"filter aesthetic: {_SCORED}, "
        + (
            "off"
            if (least := config.aesthetic.min_score) is None
            else f"rating of at least {least}"
        ),
    ]
    return [*lines, "scores only: no clip is filtered"] if config.score_only else lines


def _stride(duration: DurationConfig) -> str:
    stride_s = duration.stride_s
    return "end to end" if stride_s is None else f"one begins every {stride_s:g} s or sooner"
