"""The checker of moving shapes: it reads the truth off films, and says no to what is not shown."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.encode import Mp4Writer
from data_prep.samples.moving_shapes import Film, FilmConfig, film
from data_prep.samples.moving_shapes.captions import caption
from data_prep.samples.moving_shapes.scene import Actor, Placed, Scene
from models.evaluation.shapes import Expectation, Report, check, parse

FPS = 12.0
RED = Actor("red", "circle", "right", "slow", "constant")
BLUE = Actor("blue", "square", "side to side", "fast", "constant")
PROPERTIES = ("count", "colour", "shape", "direction", "speed", "pace", "identity")


def _film(*objects: Placed, seconds: float = 3.0, side_px: int = 96) -> Film:
    scene = Scene(seconds, (70, 90), objects)
    return Film(caption([one.actor for one in objects]), (scene,), side_px, side_px, FPS)


def _red(**changed) -> Placed:
    """Return a red circle that moves slowly to the right, in the upper half."""
    changed = {"start": (0.2, 0.25), "velocity": (0.12, 0.0), **changed}
    return Placed(RED, radius=0.12, phase=0.0, **changed)


def _blue(**changed) -> Placed:
    """Return a blue square that bounces quickly from side to side, in the lower half."""
    changed = {"start": (0.5, 0.7), "velocity": (0.35, 0.0), **changed}
    return Placed(BLUE, radius=0.12, phase=0.0, **changed)


HARD_TO_TELL = ("pace", "speed")
"""What a few seconds do not always tell of shapes whose pace changes or that others touch."""
BOTH = parse(_film(_red(), _blue()).caption)


def _painted(**changed: Placed) -> list[np.ndarray]:
    """Return frames in which another actor plays a part, while the prompt stays `BOTH`."""
    return list(_film(*{"red": _red(), "blue": _blue(), **changed}.values()).frames())


def _as(placed: Placed, **changed) -> Placed:
    return replace(placed, actor=replace(placed.actor, **changed))


def _coded(frames: Iterable[np.ndarray], path: Path, fps: float, crf: int) -> Iterator[np.ndarray]:
    """Yield frames of half the size after coding."""
    half = (cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames)
    first = next(half)
    with Mp4Writer(path, fps, first.shape[1], first.shape[0], crf) as writer:
        for frame in itertools.chain([first], half):
            writer.write(frame)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _faults(report: Report, allowed: tuple[str, ...] = ()) -> list:
    """Return what is not said to be right, nor allowed to be unknown."""
    return [
        verdict
        for verdict in report.verdicts
        if verdict.status == "no"
        or (verdict.status == "unknown" and verdict.property not in allowed)
    ]


@settings(max_examples=10)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(64, 64, 8.0), (96, 72, 12.0), (256, 256, 24.0), (120, 160, 10.0)]),
)
@example(929, (120, 160, 10.0))  # fast, and for most of it no faster than 0.209 widths a second
def test_the_truth_is_read_off_rendered_films(seed, form) -> None:
    width, height, fps = form
    one = film(FilmConfig(width_px=width, height_px=height, fps=fps, scene_s=3.5), seed, 0)
    report = check(one.frames(), fps, parse(one.caption), one.cuts)
    assert _faults(report, allowed=HARD_TO_TELL) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_truth_is_read_off_films_of_low_quality(seed: int, tmp_path: Path) -> None:
    one = film(FilmConfig(width_px=256, height_px=256, fps=FPS, scene_s=3.5), seed, 1)
    frames = _coded(one.frames(), tmp_path / "low.mp4", FPS, crf=40)
    assert _faults(check(frames, FPS, parse(one.caption), one.cuts), allowed=HARD_TO_TELL) == []


def _poor(frames: Iterable[np.ndarray], seed: int) -> Iterator[np.ndarray]:
    """Yield frames as a small model makes them: blurred, pale, tinted and mottled."""
    rng = np.random.default_rng(seed)
    for frame in frames:
        size = frame.shape[1::-1]
        pale = 128 + 0.7 * (cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.2) - 128)
        mottle = cv2.resize(rng.normal(0, 12, (16, 16, 3)), size, interpolation=cv2.INTER_CUBIC)
        noisy = pale + mottle + rng.normal(0, 4, frame.shape) + np.array([8, -4, -10])
        yield np.clip(noisy, 0, 255).astype(np.uint8)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_the_truth_is_read_off_what_a_small_model_would_make(seed) -> None:
    one = film(FilmConfig(width_px=64, height_px=64, fps=8, scene_s=4), seed, 2)
    report = check(_poor(one.frames(), seed), 8, parse(one.caption), one.cuts)
    assert _faults(report, allowed=HARD_TO_TELL) == []


def test_a_minute_of_three_shapes_is_one_minute_of_the_same_three() -> None:
    config = FilmConfig(
        width_px=64, height_px=64, fps=8, scene_s=60, scenes_max=1, objects_max=3, changing=0
    )
    one = next(
        found for n in range(50) if len((found := film(config, 3, n)).scenes[0].objects) == 3
    )
    assert len(one.truth()["scenes"][0]["overlaps"]) > 10
    report = check(one.frames(), 8, parse(one.caption))
    assert _faults(report) == []
    assert report.status == "yes"


def test_a_shape_wholly_behind_another_is_still_the_same_one() -> None:
    behind = _as(_red(start=(0.3, 0.7), velocity=(0.12, 0.0)))
    front = replace(_blue(start=(0.75, 0.7), velocity=(-0.3, 0.0)), radius=0.14)
    one = _film(behind, front, seconds=4.0)
    report = check(one.frames(), FPS, parse(one.caption))
    assert _faults(report) == []


def test_two_of_one_shape_that_swap_while_one_hides_the_other_are_found_out() -> None:
    left = _as(_blue(start=(0.2, 0.5), velocity=(0.3, 0.0)), colour="red")
    right = _blue(start=(0.8, 0.5), velocity=(-0.3, 0.0))
    one = _film(left, right, seconds=2.0)
    frames = list(one.frames())
    assert check(frames, FPS, parse(one.caption)).of("direction") == "yes"
    swapped = _halves(frames, _recoloured(frames, [2, 1, 0]))
    report = check(swapped, FPS, parse(one.caption))
    assert report.of("direction") == "no", report


def _halves(first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
    return [*first[: len(first) // 2], *second[len(second) // 2 :]]


def _recoloured(frames: list[np.ndarray], order: list[int]) -> list[np.ndarray]:
    return [np.ascontiguousarray(frame[..., order]) for frame in frames]


def _faded(frames: list[np.ndarray]) -> list[np.ndarray]:
    lights = np.clip(np.linspace(2, -0.5, len(frames)), 0, 1)
    return [(frame * light).astype(np.uint8) for frame, light in zip(frames, lights, strict=True)]


RIGHT = _painted()
WRONG: dict[str, tuple[list[np.ndarray], str, str | None]] = {
    "a still": ([RIGHT[0]] * len(RIGHT), "direction speed pace", None),
    "a fade to black": (_faded(RIGHT), "count identity", None),
    "a wrong colour": (_painted(red=_as(_red(), colour="green")), "colour identity", "red circle"),
    "pink for red": (
        [np.where(f[..., :1] > 150, f + np.array([0, 0, 90], np.uint8), f) for f in RIGHT],
        "colour",
        "red circle",
    ),
    "a wrong shape": (_painted(red=_as(_red(), shape="square")), "shape", "red circle"),
    "another wrong shape": (_painted(blue=_as(_blue(), shape="triangle")), "shape", "blue square"),
    "a wrong direction": (
        _painted(red=_red(start=(0.8, 0.25), velocity=(-0.12, 0.0))),
        "direction",
        "red circle",
    ),
    "a bounce up and down": (_painted(blue=_blue(velocity=(0.0, 0.35))), "direction", None),
    "too fast": (_painted(red=_red(start=(0.13, 0.25), velocity=(0.24, 0.0))), "speed", None),
    "too slow": (_painted(blue=_blue(velocity=(0.1, 0.0))), "speed", "blue square"),
    "a changing pace": (_painted(blue=_as(_blue(), pace="changing")), "pace", "blue square"),
    "backwards from the middle": (
        [*RIGHT[: len(RIGHT) // 2], *RIGHT[len(RIGHT) // 2 :: -1]],
        "direction",
        "red circle",
    ),
    "a missing object": (list(_film(_blue()).frames()), "count colour identity", None),
    "an object too many": (
        _painted(extra=replace(_as(_red(), colour="yellow"), start=(0.2, 0.5))),
        "count",
        None,
    ),
    "one of the same colour too many": (
        _painted(
            extra=replace(
                _as(_red(start=(0.85, 0.3), velocity=(0, 0)), shape="triangle"), radius=0.08
            )
        ),
        "count",
        None,
    ),
    "an object that goes": (_halves(RIGHT, list(_film(_blue()).frames())), "identity", None),
    "an object that comes": (_halves(list(_film(_blue()).frames()), RIGHT), "identity", None),
    "swapped colours": (_halves(RIGHT, _recoloured(RIGHT, [2, 1, 0])), "identity", None),
    "swapped shapes": (
        _halves(
            RIGHT, _painted(red=_as(_red(), shape="square"), blue=_as(_blue(), shape="circle"))
        ),
        "identity",
        None,
    ),
    "another colour from the middle": (
        _halves(RIGHT, _painted(red=_as(_red(), colour="purple"))),
        "identity",
        "red circle",
    ),
    "another place from the middle": (
        _halves(RIGHT, _painted(red=_red(start=(0.2, 0.25 + 0.2)))),
        "identity",
        "red circle",
    ),
}


def test_the_right_video_is_right() -> None:
    report = check(RIGHT, FPS, BOTH)
    assert _faults(report) == []
    assert {verdict.property for verdict in report.verdicts} == set(PROPERTIES)
    assert all(verdict.measured for verdict in report.verdicts)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("low", [False, True], ids=["rendered", "low"])
def test_what_is_not_shown_gets_a_no_with_its_reason(name: str, low: bool, tmp_path: Path) -> None:
    frames, properties, whose = WRONG[name]
    if low:
        large = (cv2.resize(f, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for f in frames)
        frames = list(_coded(large, tmp_path / "low.mp4", FPS, crf=32))
    report = check(frames, FPS, BOTH)
    for name in properties.split():
        found = [v for v in report.verdicts if v.property == name and v.status == "no"]
        assert found, (name, [v for v in report.verdicts if v.property == name])
        assert whose in (None, *(verdict.object for verdict in found))
        assert all(verdict.measured for verdict in found)


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from([1, 4, 16]))
def test_noise_of_any_grain_passes_nothing(seed, grain) -> None:
    rng = np.random.default_rng(seed)
    side = 64 // grain
    noise = rng.integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    frames = noise.repeat(grain, axis=1).repeat(grain, axis=2)
    report = check(frames, 8, BOTH)
    assert report.status == "no"
    assert report.of("count") == "no" or report.of("identity") == "no"
    assert report.of("direction") != "yes"
    assert report.of("shape") != "yes"


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_empty_picture_shows_nothing(grey: int) -> None:
    report = check([np.full((64, 64, 3), grey, np.uint8)] * 8, 8, BOTH)
    assert report.of("count") == report.of("colour") == report.of("identity") == "no"
    assert report.of("shape") == report.of("direction") == report.of("speed") == "unknown"


def test_what_a_short_video_cannot_tell_is_unknown_and_no_pass() -> None:
    report = check(RIGHT[:3], FPS, BOTH)
    assert report.of("count") == report.of("colour") == report.of("shape") == "yes"
    assert report.of("direction") == report.of("speed") == report.of("pace") == "unknown"
    assert report.status == "unknown"


def test_an_announced_cut_is_no_jump_and_another_one_is() -> None:
    config = FilmConfig(width_px=96, height_px=96, fps=FPS, scene_s=2.5)
    one = next(found for n in range(50) if (found := film(config, 0, n)).cuts)
    assert check(one.frames(), FPS, parse(one.caption), one.cuts).of("identity") == "yes"
    assert check(one.frames(), FPS, parse(one.caption)).of("identity") == "no"


def test_frames_are_taken_one_by_one() -> None:
    alive = 0

    class Frame(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def frames() -> Iterator[np.ndarray]:
        nonlocal alive
        for frame in RIGHT:
            alive += 1
            assert alive <= 4
            yield frame.copy().view(Frame)

    check(frames(), FPS, BOTH)


@pytest.mark.parametrize(
    ("frames", "fps", "match"),
    [
        ([], 8, "without frames"),
        (RIGHT[:2], 0, "fps 0"),
        ([RIGHT[0], RIGHT[1][:50]], 8, "one size"),
        ([RIGHT[0].astype(np.float32)], 8, "uint8"),
    ],
)
def test_bad_input_is_refused(frames: list[np.ndarray], fps: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check(frames, fps, BOTH)


def test_expectations_are_of_different_colours() -> None:
    with pytest.raises(ValueError, match="all different"):
        Expectation((BOTH.objects[0], BOTH.objects[0]))
