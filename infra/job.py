"""A job: one config in, one artifact out; the command line that all jobs share."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from infra import artifact, cluster, config, run_lock
from infra.command_line import describe, run_and_exit
from infra.config import JobConfig
from infra.log import logger

C = TypeVar("C", bound=JobConfig)
Summary = dict[str, Any]


@dataclass(frozen=True)
class Job(Generic[C]):
    """A named step from a config to an artifact."""

    name: str
    """The module's name, such as ``"prepare"``."""
    kind: str | Callable[[C], str]
    """The kind of the artifact, such as ``"clips"``, or how it follows from the config."""
    config: type[C]
    plan: Callable[[C], list[str]]
    """Returns what the job would do, line by line; reads little and writes nothing."""
    run: Callable[[C, artifact.Output], Summary]
    """Does the work in a Ray session, going on with what is at the output; returns the summary."""
    project: Callable[[C], list[str]] | None = None
    """Returns what the work would take, line by line; a dry run asks, and it may take a while."""

    @property
    def module(self) -> str:
        """The name of the job's module, such as ``"ray_jobs.prepare"``: where `run` is."""
        name = self.run.__module__
        spec = sys.modules[name].__spec__ if name == "__main__" else None
        return spec.name if spec else name

    def kind_of(self, settings: C) -> str:
        """Return the kind of the artifact that `settings` make."""
        return self.kind if isinstance(self.kind, str) else self.kind(settings)


def execute(job: Job[C], settings: C, found: artifact.Output | None = None) -> Summary:
    """Run a job in the current Ray session; of a finished artifact the summary is read.

    Args:
        job: to run.
        settings: of the job.
        found: what :func:`artifact.look` has found, its plan looked through; None does both here.

    Raises:
        UserError: bad inputs, or an output that holds other work or that another run writes to.
    """
    begun_at = time.monotonic()
    kind = job.kind_of(settings)
    planned = found is not None
    found = found or artifact.look(kind, settings)
    if found.state is artifact.State.FINISHED:
        logger.info(f"{job.name}: finished already at {settings.output}")
        return artifact.summary(settings.output)
    if not planned:
        job.plan(settings)  # refuses bad inputs before anything is written
    with run_lock.held(settings.output):
        output = artifact.begin(kind, settings, found)
        if output.state is artifact.State.FINISHED:  # by a run that was awaited
            return artifact.summary(output.uri)
        resumes = " (resuming an unfinished run)" if output.state is artifact.State.RESUMED else ""
        logger.info(f"{job.name}: {output.uri}{resumes}")
        summary = job.run(settings, output)
        info = artifact.finish(output, kind, summary, begun_at)
    logger.info(f"{job.name}: done in {info.seconds:.0f} s")
    return summary


def main(job: Job[Any], argv: Sequence[str] | None = None) -> None:
    """Run a job from the command line and exit; see :func:`infra.command_line.run_and_exit`."""
    parser = _parser(job)
    args = parser.parse_intermixed_args(argv)  # overrides may stand after an option
    run_and_exit(lambda: _run(job, args))


def _run(job: Job[Any], args: argparse.Namespace) -> None:
    settings = config.load(job.config, args.config, args.overrides)
    if args.dry_run:
        print(config.dump(settings), end="")
        print("\n".join(["# plan:", *(f"#   {line}" for line in job.plan(settings))]), flush=True)
        if job.project is not None:
            print("".join(f"#   {line}\n" for line in job.project(settings)), end="")
        return
    found = artifact.look(job.kind_of(settings), settings)
    finished = found.state is artifact.State.FINISHED
    if not finished:
        job.plan(settings)  # bad input is said before Ray takes its time to start
    with nullcontext() if finished else cluster.session(args.address):
        execute(job, settings, found)
    print(settings.output)


def _parser(job: Job[Any]) -> argparse.ArgumentParser:
    doc = (sys.modules[job.run.__module__].__doc__ or "").strip()
    parser = argparse.ArgumentParser(
        prog=f"python -m {job.module}",
        description=doc,
        epilog="keys:\n" + "\n".join(describe(job.config)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML; a later one wins"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="wins over files")
    add_address(parser)
    return parser


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the options that jobs and pipelines share."""
    parser.add_argument(
        "--address", help="Ray cluster (host:port or auto; default RAY_ADDRESS, else in process)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and the plan, and stop"
    )
