"""Resume index of a training run's checkpoints: Ray Train's record, or else the folders themselves.

Ray Train overwrites its record in place, and reads none that another version of Ray wrote. A full
disk or a kill at the wrong moment leaves it truncated, and the run could not resume; the
checkpoints themselves carry digests, so only their order has to be known.
"""

import ray
import ray.train

from infra import storage
from infra.log import logger

FOLDER = "checkpoints"
"""Below the output; Ray Train's own name for the run."""
RECORD = "checkpoint_manager_snapshot.json"
_MARK = "/train_state.json"


def drop_unusable_record(output: str) -> None:
    """Remove Ray Train's record of a run's checkpoints where it could not be read."""
    uri = storage.join(output, FOLDER, RECORD)
    if storage.exists(uri) and not _usable(uri):
        logger.warning(
            f"{uri}: damaged, or of another version of Ray; taking the checkpoints that are there"
        )
        storage.remove(uri)


def newest_first(output: str) -> list[ray.train.Checkpoint]:
    """Return a run's checkpoints, damaged ones too; workers call this when they begin."""
    reported = [each.checkpoint for each in ray.train.get_all_reported_checkpoints()]
    latest = ray.train.get_checkpoint()
    if reported or latest:
        return list(reversed(reported)) or [latest]  # pyright: ignore[reportReturnType]
    filesystem, path = storage.arrow_filesystem(storage.join(output, FOLDER))
    return [
        ray.train.Checkpoint(f"{path}/{name}", filesystem) for name in reversed(_folders(output))
    ]


def workers_of_newest(output: str) -> int | None:
    """Return how many workers wrote the newest checkpoint whose state can be read; None: none."""
    for name in reversed(_folders(output)):
        try:
            return int(storage.read_json(storage.join(output, FOLDER, name) + _MARK)["workers"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _folders(output: str) -> list[str]:
    """Return the names of the checkpoints' folders, oldest first: each begins with its time."""
    files = storage.list_files(storage.join(output, FOLDER), (_MARK,))
    return sorted(file.split("/")[-2] for file in files)


def _usable(uri: str) -> bool:
    try:
        record = storage.read_json(uri)
        named = {each["checkpoint_dir_name"] for each in record["checkpoint_results"]}
        same = record["ray_version"] == ray.__version__
    except (ValueError, KeyError, TypeError):
        return False
    return same and named <= set(_folders(uri.rsplit("/", 2)[0]))
