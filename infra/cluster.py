"""Ray sessions, started in this process or joined on a cluster."""

import importlib.util
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from infra.config import SUBMITTED
from infra.errors import UserError, one_line
from infra.log import logger

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipelines", "ray_jobs", "models", "data_prep", "tuning", "infra")
EXCLUDES = ("/.git/", "/.venv/", "/outputs/", "/tests/golden/", "**/__pycache__/", ".*_cache/")
"""What is not sent to the cluster with the source (anchored, so that `models/` is never hit)."""

_QUIET = {
    "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",  # EXCLUDES has them; Ray warns at every start
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

START_PATIENCE_S = (60.0, 120.0, 240.0)
"""Seconds that each attempt to start Ray here waits for its node."""
_LATE = "timed out during startup"

_TOKEN_HINT = (
    "if the cluster asks for a token, as Ray's do by default, set RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN (or have the token in ~/.ray/auth_token)"
)


def runtime_env() -> dict[str, Any]:
    """Return Ray's runtime environment: this source tree, and quiet libraries."""
    return {"working_dir": str(ROOT), "excludes": list(EXCLUDES), "env_vars": dict(_QUIET)}


@contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Hold a Ray session: joined when one is up, else the given cluster, else in this process.

    Args:
        address: a cluster's ``host:port`` or ``auto``; None reads ``RAY_ADDRESS``, and without it
            Ray starts in this process with all of the machine's cores.

    Raises:
        UserError: no cluster answers at the address, Ray cannot start here, or a root package of
            another project would be imported in place of ours.
    """
    check_root_packages()
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    os.environ.update({key: os.environ.get(key, value) for key, value in _QUIET.items()})
    if address:
        _check_listens(address)
    env = None if SUBMITTED in os.environ else runtime_env()  # `ray job submit` sent the source
    if address:
        _join(address, env)
    else:
        _start(env)
    _hush()
    try:
        check: Any = ray.remote(num_cpus=0)(check_root_packages)
        ray.get(check.remote(remote=True))
        yield
    finally:
        ray.shutdown()


def _join(address: str, env: dict[str, Any] | None) -> None:
    try:
        ray.init(address=address, runtime_env=env, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise UserError(f"Ray address {address}: {one_line(error)}; {_TOKEN_HINT}") from None
    except Exception as error:
        raise UserError(f"Ray address {address}: {one_line(error)}") from error


def _start(env: dict[str, Any] | None) -> None:
    """Start Ray in this process; on a machine too busy for it, again with more patience."""
    for number, patience_s in enumerate(START_PATIENCE_S, 1):
        try:
            with _patient(patience_s):
                # With the dashboard: without it Ray Train's placement group cleaner, which asks it
                # whether a run is alive, warns every second and cleans up nothing.
                ray.init(address="local", runtime_env=env, logging_level=logging.WARNING)
            return
        except Exception as error:  # Ray raises a bare one when its node does not come up
            ray.shutdown()
            late = _LATE in str(error)
            if not late or number == len(START_PATIENCE_S):
                hint = "; the machine is busy, try again when it is not" if late else ""
                raise UserError(f"Ray did not start: {one_line(error)}{hint}") from error
            logger.warning(
                f"Ray is slow to start on this busy machine; trying again with more patience "
                f"({number + 1} of {len(START_PATIENCE_S)})"
            )


@contextmanager
def _patient(seconds: float) -> Iterator[None]:
    """Let Ray wait longer for its node than the 30 s that it has hard-coded."""
    from ray._private import services

    ask, until = services.get_node, time.monotonic() + seconds

    def ask_again(*args: Any) -> Any:
        while True:
            try:
                return ask(*args)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    services.get_node = ask_again
    try:
        yield
    finally:
        services.get_node = ask


def _check_listens(address: str) -> None:
    """Refuse at once a ``host:port`` where nobody listens; Ray would ask for ten minutes."""
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isdigit():
        return  # auto, local, or for Ray to judge
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"Ray address {address}: {one_line(error)}") from None


def _hush() -> None:
    """Leave progress to :mod:`infra.progress`; Ray Data's warnings stay."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def check_root_packages(remote: bool = False) -> None:
    """Assert that every root package comes from this source tree.

    A foreign ``models`` in site-packages wins when the root is not first on ``sys.path``.

    Args:
        remote: compare with the working directory of a Ray worker instead of this file's tree.

    Raises:
        UserError: names the package and where it came from.
    """
    root = Path.cwd().resolve() if remote else ROOT
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places or Path(places[0]).resolve().parent != root:
            found = places[0] if places else "nowhere"
            raise UserError(
                f"package {package}: found {found}, expected below {root}; "
                "run from the project's root as `python -m …`"
            )
