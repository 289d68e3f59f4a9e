"""Mutation score of modules that need no Ray: ``python -m tests.mutants [module ...]``.

Each mutant is one small change that cosmic-ray makes to a copy of the tree; a good suite notices it
by failing. The tests of the module run in a fork of this process, which holds the libraries but
nothing of the project, so that a mutant costs a second or two. Unions of types are left as they
are, and of a module's mutants at most ``--most`` are drawn, the same ones each time.
"""

import argparse
import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
ROOMS = ("infra", "data_prep", "models", "ray_jobs", "pipelines", "tuning", "tests")
LIBRARIES = (
    "torch",
    "deepspeed",
    "pyarrow.parquet",
    "fsspec",
    "s3fs",
    "hypothesis",
    "cv2",
    "av",
    "ray",
    "ray.train",
    "torchvision",
)
TIMEOUT_S = 120.0
AR = "models/autoregressive"
TRAINING = "ray_jobs/training"
MODULES = {
    "infra/seeding.py": ("tests/infra/test_seeding.py",),
    "infra/override_values.py": (
        "tests/infra/test_override_values.py",
        "tests/infra/test_config.py",
    ),
    "data_prep/loader.py": ("tests/data_prep/test_loader.py",),
    "data_prep/sampling.py": ("tests/data_prep/test_sampling.py",),
    f"{AR}/sampling.py": ("tests/models/autoregressive/test_sampling.py",),
    f"{AR}/loong/loss.py": ("tests/models/autoregressive/loong/test_loss.py",),
    f"{TRAINING}/bad_loss.py": (f"tests/{TRAINING}/test_bad_loss.py",),
    f"{TRAINING}/batches.py": (f"tests/{TRAINING}/test_batches.py",),
    f"{TRAINING}/config.py": (f"tests/{TRAINING}/test_config.py",),
    f"{TRAINING}/ema.py": (f"tests/{TRAINING}/test_ema.py",),
}
"""Modules, and the tests that are to notice what changes in them."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield (what was changed, the changed source) for every change to a module."""
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments() or "BitOr" in name or "NoOp" in name:
            continue
        operator: Any = kind()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for number, ((line, column), _) in enumerate(places):
            changed = mutate_code(source, operator, number)
            if changed is not None and changed != source:
                yield f"{line}:{column} {name.removeprefix('core/')}", changed


def passes(tree: Path, tests: tuple[str, ...]) -> bool:
    """Return whether tests of a tree pass, in a fork that is ended after `TIMEOUT_S`."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        os.chdir(tree)
        sys.path[:] = [str(tree), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    end = time.monotonic() + TIMEOUT_S
    status: int | None = None
    while status is None and time.monotonic() < end:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    return status == 0


def score(tree: Path, module: str, most: int) -> tuple[int, list[str]]:
    """Return how many mutants of a module were tried, and those that its tests did not notice.

    Raises:
        RuntimeError: the tests fail without a change.
    """
    file, tests = tree / module, MODULES[module]
    source = file.read_text()
    if not passes(tree, tests):
        raise RuntimeError(f"{module}: {', '.join(tests)} fail without a change")
    every = list(mutants(source))
    drawn = random.Random(module).sample(every, min(most, len(every)))
    survivors = []
    for name, changed in drawn:
        file.write_text(changed)
        if passes(tree, tests):
            survivors.append(name)
    file.write_text(source)
    return len(drawn), sorted(survivors, key=lambda name: int(name.split(":")[0]))


def main() -> None:
    """Print a line for each module, and below it the mutants that were not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; none: all of them")
    parser.add_argument("--most", type=int, default=100, help="mutants of a module")
    chosen = parser.parse_args()
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    for library in LIBRARIES:
        importlib.import_module(library)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for room in ROOMS:
            shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for module in chosen.modules or MODULES:
            begun = time.monotonic()
            tried, survivors = score(tree, module, chosen.most)
            share = 1 - len(survivors) / tried if tried else 1.0
            print(
                f"{module}: {tried - len(survivors)} of {tried} noticed ({share:.0%}), "
                f"{time.monotonic() - begun:.0f} s",
                *(f"  {name}" for name in survivors),
                sep="\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
