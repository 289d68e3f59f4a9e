"""CLIP: open_clip's own numbers whatever the batch, and one line when something is missing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from infra.errors import UserError
from models.perception import clip
from models.perception.clip import Clip
from tests.models.perception import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (90, 160, 3), dtype=np.uint8) for _ in range(7)]


def test_embeddings_are_those_of_open_clip(files, frames) -> None:
    weights, _ = files
    ours = Clip(str(weights), None, CPU, 4)
    made: Any = open_clip.create_model_and_transforms(f"local-dir:{weights}")
    theirs, _, prepare = made
    tokens = open_clip.get_tokenizer(f"local-dir:{weights}")(["a grey rabbit", "two bikes"])
    with torch.inference_mode():
        pictures = torch.stack([prepare(Image.fromarray(frame)) for frame in frames])
        images = theirs.eval().encode_image(pictures, normalize=True)
        texts = theirs.encode_text(tokens, normalize=True)
    torch.testing.assert_close(ours.embed(frames), images)
    torch.testing.assert_close(ours.embed_texts(["a grey rabbit", "two bikes"]), texts)
    assert ours.ratings(images) is None


def test_a_frame_has_the_same_embedding_in_any_company(files, frames) -> None:
    model = Clip(str(files[0]), None, CPU, 4)
    whole = model.embed(frames)
    for number, frame in enumerate(frames):
        assert torch.equal(model.embed([frame])[0], whole[number])
    assert model.embed([]).shape == model.embed_texts([]).shape == (0, 16)


def test_ratings_are_linear_in_the_embedding(files, frames) -> None:
    weights, head = files
    model = Clip(str(weights), str(head), CPU, 4)
    embedded = model.embed(frames)
    state = clip.files.load_state(head)
    expected = embedded @ state["weight"][0] + state["bias"]
    assert model.ratings(embedded) == pytest.approx(expected.tolist(), abs=1e-5)


def test_what_is_missing_is_said_in_one_line(files, tmp_path: Path, monkeypatch) -> None:
    weights, head = files
    clip.check(str(weights), str(head))
    with pytest.raises(UserError, match=r"stages.clip.weights: none given, .* such as laion/"):
        clip.check(None, None)
    with pytest.raises(UserError, match=r"has no open_clip_config\.json; expected a directory"):
        clip.check(str(tmp_path), None)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(UserError, match=r"has no open_clip_model\.safetensors or .*; expected a"):
        clip.check(str(tmp_path), None)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": 3}))
    with pytest.raises(UserError, match="has no model_cfg"):
        clip.check(str(tmp_path), None)
    with pytest.raises(UserError, match=r"expected weight \(1, 16\) and bias"):
        clip.check(str(weights), str(tmp_path / "model.safetensors"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="no/such: no local path, and as a hub id its") as caught:
        clip.check("no/such", None)
    assert "\n" not in str(caught.value)


def test_tensors_alone_are_unpickled(files, frames, tmp_path: Path) -> None:
    weights, head = files
    folder = tmp_path / "pickled"
    shutil.copytree(weights, folder)
    file = folder / "open_clip_model.safetensors"
    torch.save(clip.files.load_state(file), folder / "open_clip_pytorch_model.bin")
    file.unlink()
    ours, theirs = (Clip(str(place), None, CPU, 4) for place in (folder, weights))
    assert torch.equal(ours.embed(frames[:1]), theirs.embed(frames[:1]))
    torch.save({"a": Path("b")}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="not a file of tensors alone"):
        Clip(str(folder), None, CPU, 1)
    torch.save(clip.files.load_state(head), folder / "head.safetensors")
    with pytest.raises(UserError, match="pickled checkpoints are not loaded"):
        clip.check(str(weights), str(folder / "head.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {"text_cfg": {**tiny.MODEL["text_cfg"], "hf_model_name": "owner/name"}},
        {"text_cfg": {**tiny.MODEL["text_cfg"], "tokenizer_kwargs": {"trust_remote_code": True}}},
        {"vision_cfg": {**tiny.MODEL["vision_cfg"], "timm_model_name": "hf-hub:owner/name"}},
        {"auto_map": {"AutoModel": "code.Model"}},
    ],
)
def test_a_config_that_may_name_code_is_refused(files, tmp_path: Path, changes: dict) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(files[0], folder)
    tree = {"model_cfg": {**tiny.MODEL, **changes}}
    (folder / "open_clip_config.json").write_text(json.dumps(tree))
    for build in (lambda: clip.check(str(folder), None), lambda: Clip(str(folder), None, CPU, 1)):
        with pytest.raises(UserError, match="which is not taken from a file"):
            build()


@pytest.fixture(params=["path", "hub id"])
def place(request, tmp_path: Path, monkeypatch) -> Callable[[Path], str]:
    """Return how a directory is named: by its path, or as a hub repository in the cache."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to "run the custom code? [y/N]"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    if request.param == "path":
        return str
    return lambda folder: tiny.as_hub_repository(folder, tmp_path / "hub")


TRUSTING = {"tokenizer_kwargs": {"trust_remote_code": True}}


@pytest.mark.parametrize(
    ("file", "text_cfg"),
    [
        ("tokenizer_config.json", TRUSTING),
        ("tokenizer_config.json", {}),
        ("special_tokens_map.json", {}),
        ("config.json", {}),
    ],
)
def test_planted_code_is_refused_and_not_run(
    files, tmp_path: Path, place, file: str, text_cfg: dict
) -> None:
    folder, ran = tmp_path / "clip", tmp_path / "ran"
    shutil.copytree(files[0], folder)
    tiny.name_a_tokenizer(folder, **text_cfg)
    found = tiny.plant_code(folder, ran)
    (folder / file).write_text(json.dumps({"model_type": "planted", **found}))
    weights = place(folder)
    for build in (lambda: clip.check(weights, None), lambda: Clip(weights, None, CPU, 1)):
        with pytest.raises(UserError, match="which is not taken from a file") as caught:
            build()
        assert "\n" not in str(caught.value)
        assert not ran.exists()


def test_planted_code_would_run_if_it_were_trusted(files, tmp_path: Path) -> None:
    folder, ran = tmp_path / "clip", tmp_path / "ran"
    shutil.copytree(files[0], folder)
    tiny.name_a_tokenizer(folder, **TRUSTING)
    found = tiny.plant_code(folder, ran)
    (folder / "tokenizer_config.json").write_text(json.dumps(found))
    open_clip.get_tokenizer(f"local-dir:{folder}")
    assert ran.exists()


def test_a_tokenizer_without_code_is_read(files, frames, tmp_path: Path, place) -> None:
    folder, ran = tmp_path / "clip", tmp_path / "ran"
    shutil.copytree(files[0], folder)
    tiny.name_a_tokenizer(folder)
    tiny.plant_code(folder, ran)
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(["grey rabbit"])
    weights = place(folder)
    clip.check(weights, None)
    model = Clip(weights, None, CPU, 1)
    assert torch.equal(model._tokenize(["grey rabbit"]), ids)
    assert ids[0, :3].tolist() == [2, 3, 0]
    assert not ran.exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer_config.json", "[1]", "tokenizer_config.json: holds list; expected a map"),
        (
            "tokenizer_config.json",
            '{"tokenizer_file": "/etc/passwd"}',
            "has tokenizer_file, which is not",
        ),
        ("tokenizer_config.json", '{"a":' * 9999, "not JSON"),
        ("config.json", '{"a":' * 90 + '{"auto_map": 1}' + "}" * 90, "names code"),
        ("open_clip_config.json", "[" * 99999, "open_clip_config.json: not JSON"),
        ("open_clip_config.json", "\xff", "open_clip_config.json: not JSON"),
        (
            "open_clip_config.json",
            '{"model_cfg": {"text_cfg": [1]}}',
            "no model_cfg.text_cfg that is a map",
        ),
        ("open_clip_config.json", '{"model_cfg": {"vision_cfg": {}}}', "open_clip cannot build it"),
        ("tokenizer.json", "{}", "open_clip cannot build it"),
        ("tokenizer.json", None, "names a tokenizer, but there is no tokenizer.json"),
    ],
)
def test_settings_of_another_form_are_refused_in_one_line(
    files, tmp_path: Path, file: str, text: str | None, message: str
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(files[0], folder)
    tiny.name_a_tokenizer(folder)
    (folder / file).unlink(missing_ok=True)
    if text is not None:
        (folder / file).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message) as caught:
        Clip(str(folder), None, CPU, 1)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
