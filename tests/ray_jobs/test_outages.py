"""Storage that is away is never a verdict on a video: every handler of one lets an outage pass."""

from typing import Any

import pyarrow as pa
import pytest

from data_prep import manifest
from data_prep.decode import DecodeLimits
from data_prep.sampling import HeldOut
from data_prep.schemas import MANIFEST
from infra import storage
from ray_jobs.evaluation import measure
from ray_jobs.scoring import decoding
from ray_jobs.sharding import source
from ray_jobs.sharding.plan import Clip

AWAY = "s3://bucket/a.mp4"


def with_sizes() -> Any:
    row = {"source_id": "0", "uri": AWAY}
    return manifest.with_sizes(pa.RecordBatch.from_pylist([row], MANIFEST))


def shards() -> Any:
    clip: Any = Clip.__new__(Clip)
    object.__setattr__(clip, "uri", AWAY)
    return list(source._decode([clip], 8.0, HeldOut(0.1, None), 1 << 20))


def scores() -> Any:
    clips = [{"clip_id": "c", "status": "kept", "start_s": 0.0, "end_s": 1.0}]
    video = {"uri": AWAY, "caption": None}
    return list(decoding._of_video(video, clips, decoding.FramesConfig(), DecodeLimits()))


def measures() -> Any:
    return measure.measure(AWAY, {"video_id": "0", "file": "a.mp4"}, measure.MeasureConfig())


@pytest.mark.parametrize("handler", [with_sizes, shards, scores, measures])
def test_an_outage_passes(handler: Any, fresh_s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # where nothing listens
        "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(storage.Unavailable, match=r"s3://bucket/a\.mp4"):
        handler()
