"""Weights from a path, from S3 and from the hub's cache, and nothing in them that runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from infra import storage
from infra.config import Section
from infra.errors import UserError
from models import hub

STATE = {"weight": torch.arange(4.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "weights"
    (made / "below").mkdir(parents=True)
    save_file(STATE, made / "a.safetensors")
    (made / "config.json").write_text("{}")
    (made / "below" / "b.safetensors").write_bytes(b"")
    return made


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_files_of_a_directory_stay_where_they_are(folder: Path) -> None:
    found = hub.local_files(str(folder), "config.json", ("model.safetensors", "*.safetensors"))
    assert found == [folder / "config.json", folder / "a.safetensors"]
    assert hub.local_file(str(folder / "a.safetensors")) == folder / "a.safetensors"
    with pytest.raises(UserError, match=r"weights: has no model.bin or b.safetensors"):
        hub.local_files(str(folder), ("model.bin", "b.safetensors"))
    with pytest.raises(UserError, match=r"c.safetensors: not found"):
        hub.local_file(str(folder / "c.safetensors"))


def test_a_hub_repository_is_read_from_its_cache(tmp_path: Path, monkeypatch) -> None:
    revision = "0" * 40
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    save_file(STATE, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = hub.local_files(
        "owner/name", "config.json", ("other.safetensors", "model.safetensors"), optional=["merges"]
    )
    assert names(found) == ["config.json", "model.safetensors"]
    assert found[0].parent == found[1].parent
    assert hub.local_file("owner/name/model.safetensors").read_bytes() == found[1].read_bytes()
    with pytest.raises(UserError, match="as a hub id its merges cannot be fetched") as caught:
        hub.local_files("owner/name", "merges")
    assert "\n" not in str(caught.value)


class Settings(Section):
    weights: hub.WeightsUri


def test_a_path_is_made_absolute_and_a_hub_id_stays(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder.parent)
    for given, meant in (
        ("weights", str(folder)),
        ("weights/a.safetensors", str(folder / "a.safetensors")),
        ("./weights/none", str(folder / "none")),
        ("owner/name", "owner/name"),
        ("s3://bucket/weights/", "s3://bucket/weights"),
    ):
        assert Settings(weights=given).weights == meant


def test_settings_hold_known_keys_only(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    allowed = {"": {"a", "b"}, "a": {"c"}}
    file.write_text('{"a": {"c": {"free": 1}}, "b": 2}')
    assert hub.settings(file, allowed) == {"a": {"c": {"free": 1}}, "b": 2}
    for text, message in (
        ('{"d": 1}', "has d, which is not taken from a file"),
        ('{"a": {"b": 1}}', "has a.b, which is not taken"),
        ('{"a": 1}', "has no a that is a map"),
        ('{"a": {"c": {"auto_map": 1}}}', r"has a\.c\.auto_map, which names code"),
        ("3", "holds int; expected a map"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            hub.settings(file, allowed)
    file.write_text('{"d": 1}')
    assert hub.settings(file) == {"d": 1}


def test_a_directory_of_given_files_alone(folder: Path) -> None:
    (folder / "code.py").touch()
    with hub.alone(folder / "config.json", folder / "a.safetensors") as made:
        assert {file.name for file in made.iterdir()} == {"config.json", "a.safetensors"}
        assert (made / "config.json").read_text() == "{}"
    assert not made.exists()
    assert (folder / "config.json").exists()


class Bomb:
    """Fails the test when unpickled."""

    def __reduce__(self) -> tuple:
        """Name a call that runs on load."""
        return (pytest.fail, ("a pickle was opened",))


def test_tensors_of_both_formats(folder: Path) -> None:
    torch.save({"state_dict": STATE}, folder / "a.pth")
    for file in ("a.safetensors", "a.pth"):
        assert torch.equal(hub.tensors(folder / file)["weight"], STATE["weight"])


@pytest.mark.parametrize("kind", ["bomb", "text", "empty", "no tensors"])
def test_what_holds_more_than_tensors_is_refused_unopened(folder: Path, kind: str) -> None:
    file = folder / "a.bin"
    if kind == "bomb":
        torch.save({"a": Bomb()}, file)
    elif kind == "no tensors":
        torch.save({"a": 3}, file)
    else:
        file.write_bytes({"text": b"hello", "empty": b""}[kind])
    with pytest.raises(UserError, match=r"a\.bin: not a file of tensors alone") as caught:
        hub.tensors(file)
    assert "\n" not in str(caught.value)


def test_s3_is_copied_once_for_each_state(s3_bucket: str, folder: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"{s3_bucket}/hub"
    storage.upload_dir(folder, place)
    config, tensors = hub.local_files(place, "config.json", "*.safetensors", optional=["none"])
    assert config.parent == tensors.parent
    assert torch.equal(hub.tensors(tensors)["weight"], STATE["weight"])
    assert hub.local_file(f"{place}/config.json").read_text() == "{}"
    assert hub.local_files(place, "config.json", "a.safetensors") == [config, tensors]
    storage.write_text(f"{place}/config.json", "[]")
    changed, _ = hub.local_files(place, "config.json", "a.safetensors")
    assert changed.read_text() == "[]"
    assert config.read_text() == "{}"
