"""A worker's codec and text encoder: clips in, rows of tokens or latents out."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from data_prep.sampling import WindowConfig
from data_prep.shards import Row, ShardSpec
from infra.config import as_tree
from infra.errors import UserError
from models import text
from models.codec import CodecSpec, Codes, VideoCodec
from models.text import TextConfig, TextSpec
from ray_jobs.sharding.source import Failure, FilmSource, ShardSource
from ray_jobs.sharding.windows import WindowEncoder


@dataclass(frozen=True)
class Encoding:
    """What a worker encodes with."""

    codec_uri: str
    codec: CodecSpec
    fingerprint: str
    """Of the codec's artifact."""
    windows: tuple[WindowConfig, ...]
    batch_size: int
    text: TextConfig
    text_spec: TextSpec
    threads: int
    """Of torch in a worker."""

    def stated(self) -> dict[str, Any]:
        """Return what the summary says of it."""
        return {
            "codec": as_tree(self.codec),
            "codec_fingerprint": self.fingerprint,
            "text": as_tree(self.text),
        }

    @property
    def shards(self) -> ShardSpec:
        """The spec of the shards that it makes."""
        stated = self.stated()
        return ShardSpec(
            "tokens" if isinstance(self.codec.latent, Codes) else "latents",
            self.codec.latent.dtype,
            stated["codec"],
            self.fingerprint,
            as_tree(self.text_spec),
        )


class TokenMaker:
    """Makes rows of encoded windows; the codec is loaded once a worker.

    Args:
        encoding: what to encode with.
        source: of frames.
        load: loads the codec.

    Raises:
        UserError: what the config names as text encoder is another one here.
    """

    def __init__(
        self,
        encoding: Encoding,
        source: FilmSource | ShardSource,
        load: Callable[[str, torch.device], VideoCodec],
    ) -> None:
        torch.set_num_threads(encoding.threads)
        self._encoding, self._source = encoding, source
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._codec = load(encoding.codec_uri, self._device)
        self._encoder = text.build(encoding.text)
        if self._encoder.spec != encoding.text_spec:
            raise UserError(
                f"text: the job began with encoder {encoding.text_spec.fingerprint}; what its "
                f"config names is {self._encoder.spec.fingerprint} on {platform.node()}"
            )
        self.spec = encoding.shards
        self.notes = Counter[str]()

    def rows(self, part: int) -> Iterator[Row | Failure]:
        """Yield a row a clip; batches never cross parts, so that a part always comes out alike."""
        self.notes = Counter[str]()
        c = self._encoding
        encoder = WindowEncoder(
            self._codec, c.codec, c.windows, c.batch_size, self._text, self._device
        )
        yield from encoder.rows(self._source.pieces(part))

    def _text(self, caption: str | None) -> bytes:
        (encoded,) = self._encoder.encode([caption])
        self.notes["cut"] += self._encoder.lengths([caption])[0] > len(encoded)
        return encoded.tobytes()
