"""Growth of what jobs take with the size of a corpus, and its table for people."""

import math
from collections.abc import Callable, Iterable, Sequence

from tests.benchmarks.scaling.meter import Measurement

FULL = 10_000_000
"""Videos of the corpus that the design is for."""
Of = Callable[[Measurement], float]


def exponent(phase: Sequence[Measurement], of: Of) -> float:
    """Return the slope of a quantity over videos, both as logarithms, at the largest two sizes.

    The smaller sizes would flatten it, since what does not depend on the size is more of them.
    """
    small, large = phase[-2:]
    if not of(small) or not of(large):
        return 0.0
    return math.log(of(large) / of(small)) / math.log(large.videos / small.videos)


def per_video(phase: Sequence[Measurement], of: Of) -> float:
    """Return what each video adds to a quantity between the largest two sizes; at least 0."""
    small, large = phase[-2:]
    return max(0.0, (of(large) - of(small)) / (large.videos - small.videos))


def projected(phase: Sequence[Measurement], of: Of, videos: int = FULL) -> float:
    """Return a quantity at another size: by the line or the power through the largest two sizes.

    The greater of both, so that neither what is fixed nor a growth above linear is overlooked.
    """
    large = phase[-1]
    line = of(large) + per_video(phase, of) * (videos - large.videos)
    power = of(large) * (videos / large.videos) ** max(0.0, exponent(phase, of))
    return max(line, power)


def by_phase(found: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Return the measurements of each phase by rising size, phases in the order they come in."""
    phases: dict[str, list[Measurement]] = {}
    for each in sorted(found, key=lambda each: each.videos):
        phases.setdefault(each.phase, []).append(each)
    return phases


QUANTITIES: dict[str, Of] = {
    "seconds": lambda each: each.seconds,
    "driver_bytes": lambda each: each.driver_bytes,
    "requests": lambda each: each.total_requests,
}

HEAD = f"{'phase':<22}{'videos':>12}{'seconds':>10}{'driver MB':>11}{'requests':>11}  by kind"


def row(each: Measurement) -> str:
    """Return a line of the table: what a phase took at one size."""
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(each.requests.items()))
    return (
        f"{each.phase:<22}{each.videos:>12,}{each.seconds:>10.1f}{each.driver_bytes / 1e6:>11.1f}"
        f"{each.total_requests:>11,}  {kinds}"
    )


def table(phases: dict[str, list[Measurement]]) -> list[str]:
    """Return lines for people: what each phase took, and what it would at `FULL` videos."""
    lines = [HEAD]
    for phase in phases.values():
        lines += map(row, phase)
        seconds, driver, requests = (projected(phase, of) for of in QUANTITIES.values())
        powers = ", ".join(
            f"{what}^{exponent(phase, QUANTITIES[what]):.2f}" for what in ("seconds", "requests")
        )
        lines.append(
            f"{'  would take':<22}{FULL:>12,}{seconds:>10.0f}{driver / 1e6:>11.0f}"
            f"{requests:>11,.0f}  {powers}, "
            f"{per_video(phase, QUANTITIES['driver_bytes']):.0f} bytes a video"
        )
    return lines
