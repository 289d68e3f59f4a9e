"""What every benchmark says last: its ratios in words, and one line of JSON."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version

PACKAGES = ("torch", "ray", "deepspeed", "pyarrow", "decord", "transformers")


def report(benchmark: str, ratios: Mapping[str, float], targets: Mapping[str, str]) -> None:
    """Print ratios beside their targets.

    Args:
        benchmark: name of the module.
        ratios: name to value.
        targets: name to ``">= 1.1"`` or ``"<= 0.05"``; a ratio may have none.
    """
    for name, value in ratios.items():
        target = targets.get(name)
        print(
            f"{name} {value:.3f}"
            + (f" (target {target}: {_verdict(value, target)})" if target else "")
        )
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}
    line = {
        "benchmark": benchmark,
        "ratios": {name: round(value, 4) for name, value in ratios.items()},
        "targets": dict(targets),
        "machine": machine,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }
    print(json.dumps(line))


def _verdict(value: float, target: str) -> str:
    relation, limit = target.split()
    met = value >= float(limit) if relation == ">=" else value <= float(limit)
    return "met" if met else "missed"
