"""Command line of the moving shapes corpus."""

import argparse
from collections.abc import Sequence

from data_prep.samples.moving_shapes.corpus import CorpusConfig, write
from infra import config
from infra.command_line import describe, run_and_exit

_ABOUT = """Write films of coloured shapes that move, bounce and pass behind each other.

Each has a caption, and what it shows is known. The manifest, whose path is printed last,
is an input of ray_jobs.prepare.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line and exit: 0 done, 2 bad input, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.samples.moving_shapes",
        description=_ABOUT,
        epilog="keys:\n" + "\n".join(describe(CorpusConfig)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML; a later one wins"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="wins over files")
    args = parser.parse_intermixed_args(argv)
    run_and_exit(lambda: print(write(config.load(CorpusConfig, args.config, args.overrides))))


if __name__ == "__main__":
    main()
