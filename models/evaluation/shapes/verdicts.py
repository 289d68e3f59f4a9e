"""Verdicts: what a video shows, held against what its prompt says, property by property."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.evaluation.shapes import colours, continuity, outlines
from models.evaluation.shapes.movement import STILL, WINDOW_S, Movement, measure
from models.evaluation.shapes.prompts import Direction, Expectation, ExpectedObject, Speed
from models.evaluation.shapes.tracks import Observation, Track, observe

Property = Literal["count", "colour", "shape", "direction", "speed", "pace", "identity"]
Status = Literal["yes", "no", "unknown"]

COUNT_SHARE_MIN = 0.9
"""The least share of frames that must show the right number of objects."""
SPEEDS: dict[Speed, tuple[float, float]] = {"slow": (0.05, 0.19), "fast": (0.19, 0.60)}
"""Median speeds in widths a second that pass; the films have 0.09 to 0.13 and 0.30 to 0.40."""
SWING_CONSTANT_MAX = 0.28
SWING_CHANGING_MIN = 0.38
"""Limits of (p90 - p10) / (p90 + p10) of the speeds; a changing pace has about 0.57."""
SEEN_S = 1.4
"""A pace can be told from this long on."""
PERIOD_S = 2.0
"""Of a changing pace; a median over less of it may be far from the mean."""
HEADING_DEG_MAX = 35.0
_HEADINGS: dict[Direction, float] = {"right": 0.0, "up": 90.0, "left": 180.0, "down": 270.0}
_ALONG_X: dict[Direction, tuple[float, float]] = {
    "side to side": (0.8, 1.0),
    "up and down": (0.0, 0.2),
    "around": (0.25, 0.75),
}
"""The share of all movement that is along x."""


@dataclass(frozen=True)
class Verdict:
    """One property of one object, or of the whole video."""

    property: Property
    object: str | None
    """Such as "red circle"; None for the whole video."""
    status: Status
    """"unknown" where the video does not tell, which is no pass."""
    expected: str
    measured: str
    """What was found, with its unit, or why nothing could be."""
    value: float | None = None
    """The number behind it: objects, degrees, widths a second or a share; None without one."""


@dataclass(frozen=True)
class Report:
    """All verdicts on one video."""

    verdicts: tuple[Verdict, ...]

    @property
    def status(self) -> Status:
        """Return "yes" if every verdict is, "no" if any is, else "unknown"."""
        found = {verdict.status for verdict in self.verdicts}
        return "no" if "no" in found else "unknown" if "unknown" in found else "yes"

    def of(self, name: Property) -> Status:
        """Return the status of one property over all objects."""
        return Report(tuple(v for v in self.verdicts if v.property == name)).status


def check(
    frames: Iterable[np.ndarray], fps: float, expected: Expectation, cuts: Sequence[int] = ()
) -> Report:
    """Measure from pixels alone whether a video shows what its prompt says.

    Args:
        frames: uint8 RGB (H, W, 3) of one size; each is looked at once and then let go.
        fps: frames per second, above 0.
        expected: what :func:`models.evaluation.shapes.prompts.parse` read from the prompt.
        cuts: frames that are known to begin a scene; an unannounced cut breaks identity.

    Raises:
        ValueError: a frame or a number is not as stated, or there is no frame.
    """
    return judge(observe(frames, fps, cuts), expected)


def judge(seen: Observation, expected: Expectation) -> Report:
    """Hold what was observed against what was expected."""
    verdicts = [_count(seen, len(expected.objects))]
    for one in expected.objects:
        track = seen.tracks.get(one.colour)
        if track is None or len(track.frames) < 2:
            verdicts += _unseen(one, seen)
            continue
        moved = measure(track, seen)
        verdicts += [
            _colour(track, one),
            _shape(track, one),
            _direction(moved, one),
            _speed(moved, one),
            _pace(moved, one),
            _identity(track, seen, one),
        ]
    return Report(tuple(verdicts))


def _count(seen: Observation, expected: int) -> Verdict:
    counts = seen.counts + continuity.hidden(seen)
    usual = int(np.bincount(counts).argmax())
    share = float((counts == expected).mean())
    good = usual == expected and share >= COUNT_SHARE_MIN
    text = f"{usual} in most frames, {expected} in {share:.0%} of them"
    return Verdict("count", None, "yes" if good else "no", str(expected), text, usual)


def _unseen(one: ExpectedObject, seen: Observation) -> list[Verdict]:
    others = ", ".join(sorted(seen.tracks)) or "none"
    text = f"no {one.colour} object (colours seen: {others})"
    wanted: dict[Property, str] = {
        "shape": one.shape,
        "direction": one.direction,
        "speed": one.speed,
        "pace": _pace_name(one),
    }
    return [
        Verdict("colour", str(one), "no", one.colour, text),
        *(Verdict(name, str(one), "unknown", want, text) for name, want in wanted.items()),
        Verdict("identity", str(one), "no", "seen throughout", text),
    ]


def _colour(track: Track, one: ExpectedObject) -> Verdict:
    hue = track.hue_deg()
    if hue is None:
        text = "never apart from other objects"
        return Verdict("colour", str(one), "unknown", one.colour, text)
    off = colours.distance_deg(hue, one.colour)
    status: Status = "yes" if off < colours.TOLERANCE_DEG else "no"
    text = f"hue {hue:.0f} degrees, {off:.0f} from {one.colour}"
    return Verdict("colour", str(one), status, one.colour, text, hue)


def _shape(track: Track, one: ExpectedObject) -> Verdict:
    mean_HW = track.outline()
    if mean_HW is None:
        text = "never apart from other objects"
        return Verdict("shape", str(one), "unknown", one.shape, text)
    found = outlines.misfits(mean_HW)
    name = outlines.named(found)
    fits = ", ".join(f"{shape} {misfit:.3f}" for shape, misfit in found.items())
    status: Status = "unknown" if name is None else "yes" if name == one.shape else "no"
    text = f"{name or 'none of the shapes clearly'} (misfits: {fits})"
    return Verdict("shape", str(one), status, one.shape, text, found[one.shape])


def _direction(moved: Movement, one: ExpectedObject) -> Verdict:
    def verdict(status: Status, text: str, value: float | None = None) -> Verdict:
        return Verdict("direction", str(one), status, one.direction, text, value)

    speeds = moved.speeds
    if len(speeds) < 2:
        return verdict("unknown", f"not whole for {WINDOW_S} s at any time")
    if np.median(speeds) < STILL:
        return verdict("no", f"stands still ({np.median(speeds):.3f} widths/s)")
    if away := [time_s for time_s, at_edge in moved.turns if not at_edge]:
        return verdict("no", f"turns away from any edge at {away[0]:.1f} s")
    total = np.abs(moved.velocities).sum(axis=0)
    if one.direction in _ALONG_X:
        low, high = _ALONG_X[one.direction]
        share = float(total[0] / total.sum())
        text = f"{share:.0%} of the movement is sideways"
        return verdict("yes" if low <= share <= high else "no", text, share)
    mean = moved.velocities.mean(axis=0)
    heading = float(np.degrees(np.arctan2(-mean[1], mean[0])) % 360)
    headings = np.degrees(np.arctan2(-moved.velocities[:, 1], moved.velocities[:, 0]))
    off = np.abs((headings - _HEADINGS[one.direction] + 180) % 360 - 180)
    share = float((off < HEADING_DEG_MAX).mean())
    text = f"heading {heading:.0f} degrees from the right, as expected for {share:.0%} of the time"
    return verdict("yes" if share >= COUNT_SHARE_MIN else "no", text, heading)


def _speed(moved: Movement, one: ExpectedObject) -> Verdict:
    low, high = SPEEDS[one.speed]
    wanted = f"{one.speed}: {low} to {high} widths/s"
    if len(moved.speeds) < 2:
        text = f"not whole for {WINDOW_S} s at any time"
        return Verdict("speed", str(one), "unknown", wanted, text)
    median = float(np.median(moved.speeds))
    status: Status = "yes" if low <= median <= high else "no"
    if one.changing and _covered_s(moved) < PERIOD_S and low / 2 < median < high * 1.6:
        status = "yes" if low * 1.6 <= median <= high / 2 else "unknown"
    return Verdict("speed", str(one), status, wanted, f"{median:.3f} widths/s", median)


def _pace(moved: Movement, one: ExpectedObject) -> Verdict:
    wanted = _pace_name(one)
    covered_s = _covered_s(moved)
    if covered_s < SEEN_S:
        text = f"seen whole for {covered_s:.1f} s on end, which is less than {SEEN_S} s"
        return Verdict("pace", str(one), "unknown", wanted, text)
    low, high = np.percentile(moved.speeds, [10, 90])
    swing = float((high - low) / max(high + low, 1e-9))
    text = f"speeds swing by {swing:.2f} of their mean"
    clear = not SWING_CONSTANT_MAX <= swing <= SWING_CHANGING_MIN
    good = (swing > SWING_CHANGING_MIN) == one.changing
    status: Status = "unknown" if not clear else "yes" if good else "no"
    if high < STILL:
        status, text = "no", f"stands still ({high:.3f} widths/s at most)"
    return Verdict("pace", str(one), status, wanted, text, swing)


def _identity(track: Track, seen: Observation, one: ExpectedObject) -> Verdict:
    fault = continuity.fault(track, seen)
    status: Status = "yes" if fault is None else "no"
    text = fault or f"goes on, with one colour and shape, for {seen.frames / seen.fps:.1f} s"
    return Verdict("identity", str(one), status, "seen throughout, the same", text)


def _pace_name(one: ExpectedObject) -> str:
    return "changing" if one.changing else "constant"


def _covered_s(moved: Movement) -> float:
    """Return the longest time, in seconds, for which movement could be measured but for turns."""
    times_s = moved.times_s
    if len(times_s) < 2:
        return 0.0
    runs = np.split(times_s, np.flatnonzero(np.diff(times_s) > 2 * WINDOW_S) + 1)
    return max(float(run[-1] - run[0]) for run in runs) + WINDOW_S
