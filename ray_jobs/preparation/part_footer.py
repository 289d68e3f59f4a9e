"""Receipt in the footer of a part of the clip table: its accounts and its videos' digests.

So the accounts of a corpus, and the search for videos that are the same bytes, read the end of each
file and no row. A part that was rewritten without its copies keeps what it had found before beside
what it holds now.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_prep.seen import DTYPE, Digests
from ray_jobs.part_files import read_footer

KEY = "longtake.part"


@dataclass(frozen=True)
class PartFooter:
    """What one part's file says of itself."""

    accounts: dict[str, Any]
    """As analysed (:func:`ray_jobs.clip_tables.add_up`)."""
    videos: str
    """16 bytes a row, base64: the video's id; zeros where its bytes could not be read."""
    copies: tuple[int, ...] = ()
    """Rows that were found to be copies of videos before them, and are filtered for it."""
    without_copies: dict[str, Any] | None = None
    """Accounts of the rows as they are; None: as analysed."""

    @property
    def digests(self) -> Digests:
        """The videos' ids, (rows,); empty bytes where there is none."""
        return np.frombuffer(base64.b64decode(self.videos), DTYPE)

    def metadata(self) -> dict[str, str]:
        """Return the entry for a Parquet file's metadata."""
        return {KEY: json.dumps(asdict(self))}


def pack(video_ids: Sequence[str | None]) -> str:
    """Return ids of 32 hex digits as `PartFooter.videos`."""
    raw = b"".join(bytes.fromhex(one or "0" * 32) for one in video_ids)
    return base64.b64encode(raw).decode()


def read(uri: str, size_bytes: int | None = None) -> PartFooter:
    """Return what the file of a part says of itself; `size_bytes` as in :func:`read_footer`."""
    tree = json.loads((read_footer(uri, size_bytes).metadata or {})[KEY.encode()])
    return PartFooter(**{**tree, "copies": tuple(tree["copies"])})
