"""A recipe: named steps, each an ordinary job whose output is the next one's input."""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infra import artifact, cluster, storage
from infra import config as configs
from infra.command_line import describe
from infra.config import JobConfig, Section
from infra.errors import UserError
from infra.job import Job, add_address, execute, run_and_exit
from infra.log import logger

PRESETS = Path(__file__).parent / "presets"
C = TypeVar("C", bound=Section)


@dataclass(frozen=True)
class Step:
    """One job of a recipe, ready to run."""

    name: str
    """The step's name, which is also its folder below the recipe's output."""
    job: Job[Any]
    config: JobConfig
    check: Callable[[], None] | None = None
    """Refuses, once the steps before are there, what a later step would refuse."""


def step(name: str, job: Job[Any], settings: dict[str, Any], **filled: Any) -> Step:
    """Return a step whose config is checked now, before any work.

    Args:
        name: what the recipe calls the step.
        job: the job that it runs.
        settings: the keys that the preset states.
        filled: the keys that the recipe fills in: ``input``, ``output``, ``seed`` and the like.

    Raises:
        UserError: a key, type or value is not allowed; the message names the step.
    """
    try:
        return Step(name, job, configs.build(job.config, {**settings, **filled}))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def run(steps: Sequence[Step]) -> None:
    """Run the steps in one Ray session; finished ones are passed over."""
    begun_at = time.monotonic()
    for number, item in enumerate(steps, start=1):
        logger.info(f"[{number}/{len(steps)}] {item.name}")
        finished = storage.exists(storage.join(item.config.output, artifact.MARKER))
        if item.check is not None and not finished:
            item.check()
        execute(item.job, item.config)
    logger.info(f"all steps done in {time.monotonic() - begun_at:.0f} s")


def plan(steps: Sequence[Step]) -> list[str]:
    """Return what :func:`run` would do; of the next step that has work, its job's plan too.

    Later steps read what is not there yet.

    Raises:
        UserError: the next step's job refuses its input.
    """
    lines, is_next = [], True
    for item in steps:
        finished = storage.exists(storage.join(item.config.output, artifact.MARKER))
        lines.append(f"{item.name}: ray_jobs.{item.job.name} → {item.config.output}")
        if finished:
            lines.append("  finished already")
            continue
        lines.append(f"  reads {', '.join(item.config.input)}")
        if is_next and all(storage.exists(uri) for uri in item.config.input):
            try:
                lines += [f"  {line}" for line in item.job.plan(item.config)]
            except UserError as error:
                raise UserError(f"{item.name}: {error}") from None
        is_next = False
    return lines


def main(
    system: str,
    model: type[C],
    steps_of: Callable[[C], list[Step]],
    refuse: Callable[[C], None],
    prepare: Callable[[C], None],
    result_of: Callable[[C], str],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a recipe from the command line and exit; its result's URI is printed last.

    Args:
        system: the recipe's name, which is also its folder of presets.
        model: its config.
        steps_of: makes the steps from a config.
        refuse: raises UserError at what cannot be; runs first, and before a plan too.
        prepare: runs before the first step, such as fetching the demo's film.
        result_of: returns the URI to print, once all steps are done.
        argv: the arguments; None takes the command line's.
    """
    presets = sorted(file.stem for file in (PRESETS / system).glob("*.yaml"))
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{system}",
        description=f"The whole {system} pipeline: every job in order, finished ones passed over.",
        epilog="keys, over those of the preset; a step's section has its job's own, as the job's "
        "--help says:\n" + "\n".join(describe(model)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", required=True, choices=presets, help="where to start from")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML; wins over the preset"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="wins over files")
    add_address(parser)
    args = parser.parse_intermixed_args(argv)  # overrides may stand after an option

    def work() -> None:
        files = [str(PRESETS / system / f"{args.preset}.yaml"), *args.config]
        config = configs.load(model, files, args.overrides)
        steps = steps_of(config)
        refuse(config)
        if args.dry_run:
            print(configs.dump(config), end="")
            print("\n".join(["# plan:", *(f"#   {line}" for line in plan(steps))]))
            return
        prepare(config)
        with cluster.session(args.address):
            run(steps)
        print(result_of(config))

    run_and_exit(work)
