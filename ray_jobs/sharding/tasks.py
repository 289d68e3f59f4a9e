"""Results of many Ray tasks in their order, with few of them in flight."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

TASKS_AT_ONCE = 64


def in_order(tasks: Iterable[Any]) -> Iterator[Any]:
    """Yield what tasks return, in the order in which a generator submits them.

    At most `TASKS_AT_ONCE` are submitted and not yet yielded, so that the driver holds few results.
    What a task raises is raised here as it was.
    """
    waiting: deque[Any] = deque()
    for task in tasks:
        waiting.append(task)
        if len(waiting) >= TASKS_AT_ONCE:
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


def _result(task: Any) -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
