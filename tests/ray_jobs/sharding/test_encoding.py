"""A worker encodes text with the very model that the job has stated in its shards."""

from pathlib import Path

import pytest
import torch

from data_prep.sampling import WindowConfig
from infra.errors import UserError
from models import text
from models.text.pieces import packaged_model
from ray_jobs.sharding.encoding import Encoding, TokenMaker
from ray_jobs.sharding.source import ShardSource
from tests.toy_codecs import ToyCodec


def maker(config: text.TextConfig, spec: text.TextSpec) -> TokenMaker:
    codec = ToyCodec("causal 4")
    windows = (WindowConfig(frames=1, stride=1),)
    encoding = Encoding(
        "/codec", codec.spec, "c", windows, 1, config, spec, torch.get_num_threads()
    )
    return TokenMaker(encoding, ShardSource("/out", "/in"), lambda uri, device: codec)


def test_another_text_model_under_the_same_path_is_refused(tmp_path: Path):
    model = tmp_path / "pieces.model"
    model.write_bytes(packaged_model().read_bytes())
    config = text.PiecesConfig(model=str(model))
    stated = text.build(config).spec
    assert maker(config, stated).spec.text == stated.model_dump()
    other = stated.model_copy(update={"fingerprint": "0" * 16})  # as where a node has another file
    with pytest.raises(UserError, match=r"began with encoder 0{16}; what its config names is"):
        maker(config, other)
