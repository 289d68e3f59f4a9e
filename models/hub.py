"""Pretrained weights as local files, from a path, an ``s3://`` URI or a hub id.

    /models/clip, ./clip            a directory of files
    s3://bucket/models/clip         the same, copied once into ~/.cache/longtake/weights
    laion/CLIP-ViT-B-32-…           a repository of the Hugging Face hub, in that library's cache

One file is named below any of them, as ``s3://bucket/models/lpips.safetensors``. A path that exists
is a path, whatever else it looks like. Only files that the caller names are brought, and tensors
are read from safetensors or by ``torch.load(weights_only=True)``. Nothing in such a place is run:
settings go through `settings`, which refuses every key that the caller does not know, and a library
that wants a directory gets one by `alone`, without what else lies beside the files.
"""

import hashlib
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from infra import storage
from infra.errors import UserError, one_line
from models import weights

_NAMES_CODE = {"auto_map", "custom_pipelines", "trust_remote_code"}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)+", re.ASCII)


def is_hub_id(source: str) -> bool:
    """Return whether `source` is ``owner/name``, perhaps with a file below, and no local path."""
    return _HUB_ID.fullmatch(source) is not None and not os.path.exists(source)


def _absolute(source: str) -> str:
    return source if is_hub_id(source) else storage.absolute(source)


WeightsUri = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
"""A local path, made absolute where the job is called, an ``s3://`` URI, or a hub id."""


def local_files(
    source: str, *wanted: str | tuple[str, ...], optional: Sequence[str] = ()
) -> list[Path]:
    """Return local files, all in one directory, fetched where they are not local.

    Args:
        source: a directory in one of the three dialects.
        wanted: names; of a tuple of names the first that is there. ``*.safetensors`` is a name too,
            but not in a hub repository, which is asked for files only.
        optional: names of files that have to lie beside them where they exist at all.

    Returns:
        One path for each of `wanted`.

    Raises:
        UserError: a file is not there, or the hub cannot be asked for it.
    """
    if is_hub_id(source):
        paths = [_of_hub(source, names) for names in map(_names, wanted)]
        for name in optional:
            _of_hub(source, [name], needed=False)
        return [path for path in paths if path is not None]
    source = storage.absolute(source)
    files = [file for file in storage.list_files(source) if "/" not in file[len(source) + 1 :]]
    there = {storage.name(file): file for file in files}
    found = [_first(source, names, there) for names in map(_names, wanted)]
    if not storage.is_remote(source):
        return [Path(there[name]) for name in found]
    beside = [name for name in optional if name in there]
    folder = _cached({name: there[name] for name in [*found, *beside]})
    return [folder / name for name in found]


def local_file(source: str) -> Path:
    """Return the local copy of one file, named in one of the three dialects.

    Raises:
        UserError: as :func:`local_files`.
    """
    if is_hub_id(source):
        owner, name, *below = source.split("/")
        if not below:
            raise UserError(f"{source}: not found, and as a hub id it names no file")
        return local_files(f"{owner}/{name}", "/".join(below))[0]
    if not storage.is_remote(source):
        return weights.found(Path(storage.absolute(source)))
    return _cached({storage.name(source): source}) / storage.name(source)


def tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of one that torch saved with nothing else in it.

    Raises:
        UserError: the file is neither; a pickle that holds more than tensors is not opened.
    """
    if file.suffix == ".safetensors":
        return weights.load_state(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        state = None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(f"{file}: not a file of tensors alone, and nothing else is loaded")
    return state


def settings(file: Path, allowed: Mapping[str, AbstractSet[str]] | None = None) -> dict[str, Any]:
    """Return the map in a JSON file that lies beside weights.

    Args:
        file: on the local disk.
        allowed: the keys that may be there, by the section that they are in: ``""`` is the whole
            file, ``"a.b"`` the map at that key, and below a map that is none of them all is
            allowed. None allows all keys but those that name code.

    Raises:
        UserError: there is another key, a section is no map, or the file is no JSON map.
    """
    tree = storage.read_map(str(file))
    sections = [("", tree)]
    while sections:
        section, values = sections.pop()
        for key, value in values.items():
            below = f"{section}.{key}" if section else key
            shown = one_line(below, 80)
            if key in _NAMES_CODE:
                raise UserError(
                    f"{file} has {shown}, which names code and which is not taken from a file"
                )
            if allowed is not None and key not in allowed.get(section, {key}):
                raise UserError(f"{file} has {shown}, which is not taken from a file")
            if isinstance(value, dict):
                sections.append((below, value))
            elif allowed is not None and below in allowed:
                raise UserError(f"{file} has no {shown} that is a map of keys to values")
    return tree


@contextmanager
def alone(*files: Path) -> Iterator[Path]:
    """Yield a directory that holds links to `files` and nothing else, gone when the block ends.

    Some libraries look at whatever lies beside the file that they are to read.
    """
    with tempfile.TemporaryDirectory(prefix="longtake-") as folder:
        for file in files:
            Path(folder, file.name).symlink_to(file.resolve())
        yield Path(folder)


def _names(wanted: str | tuple[str, ...]) -> tuple[str, ...]:
    return (wanted,) if isinstance(wanted, str) else wanted


def _first(source: str, names: tuple[str, ...], there: dict[str, str]) -> str:
    for name in names:
        for file in sorted(there):
            if fnmatch(file, name):
                return file
    raise UserError(f"{source}: has no {' or '.join(names)}")


def _of_hub(source: str, names: Sequence[str], needed: bool = True) -> Path | None:
    """Return the first of some files of a hub repository, from its cache when it is there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    said: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(source, name))
        except EntryNotFoundError as error:  # not there, or not in the cache of a machine offline
            said = said or error
        except Exception as error:  # each cause has its own class, from no network to no such id
            said = error
            break
    if said is None or not needed:
        return None
    raise UserError(
        f"{source}: no local path, and as a hub id its {' or '.join(names)} cannot be fetched "
        f"({one_line(said, 120)})"
    )


def _cached(files: dict[str, str]) -> Path:
    """Return a directory with copies of remote files, one for each state that they were in."""
    state = "\n".join(f"{uri} {storage.checksum(uri)}" for _, uri in sorted(files.items()))
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "longtake", "weights", hashlib.sha256(state.encode()).hexdigest()[:16])
    folder.mkdir(parents=True, exist_ok=True)
    for name, uri in files.items():
        if not (folder / name).is_file():
            with storage.open_input(uri) as source, storage.open_output(str(folder / name)) as copy:
                shutil.copyfileobj(source, copy, storage.BLOCK_BYTES)
    return folder
