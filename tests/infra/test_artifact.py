"""Artifacts: the marker comes last, a rerun goes on, another config is refused."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import pytest

from infra import artifact, storage
from infra.artifact import State
from infra.config import JobConfig, Resources, Section
from infra.errors import UserError


class Run(Section):
    tracking: str = ""
    steps: int = 1


class Example(JobConfig):
    not_counted: ClassVar[tuple[str, ...]] = (*JobConfig.not_counted, "run.tracking")

    steps: int = 1
    run: Run = Run()


def config(tmp_path: Path, **changes: object) -> Example:
    (tmp_path / "in").mkdir(parents=True, exist_ok=True)
    fields = {"input": (str(tmp_path / "in"),), "output": str(tmp_path / "out"), **changes}
    return Example(**fields)


def finished(tmp_path: Path, **changes: object) -> artifact.ArtifactInfo:
    output = artifact.begin("clips", config(tmp_path, **changes))
    storage.write_bytes(output.path("clips", "a.parquet"), b"data")
    return artifact.finish(output, "clips", {"clips": 3, "note": "x"}, time.monotonic())


def test_new_then_resumed_then_finished(tmp_path: Path):
    assert artifact.begin("clips", config(tmp_path)).state is State.NEW
    assert artifact.begin("clips", config(tmp_path)).state is State.RESUMED
    with pytest.raises(UserError, match="unfinished"):
        artifact.read(str(tmp_path / "out"))
    info = finished(tmp_path)
    assert artifact.begin("clips", config(tmp_path)).state is State.FINISHED
    assert artifact.read(str(tmp_path / "out"), ("clips",)) == info
    assert info.counts == {"clips": 3}
    listed = dict(artifact.files(str(tmp_path / "out")))
    assert list(listed) == ["clips/a.parquet", "config.yaml", "summary.json"]
    assert listed["clips/a.parquet"] == 4
    assert (info.files, info.size_bytes) == (3, sum(listed.values()))
    assert list(artifact.files(str(tmp_path / "out"), "clips")) == [("clips/a.parquet", 4)]


def test_an_index_of_many_files_is_written_in_batches(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(artifact, "_FILES_AT_ONCE", 2)
    output = artifact.begin("clips", config(tmp_path))
    for number in range(5):
        storage.write_bytes(output.path("clips", f"{number}"), b"x" * number)
    info = artifact.finish(output, "clips", {}, time.monotonic())
    found = list(artifact.files(output.uri, "clips"))
    assert found == [(f"clips/{number}", number) for number in range(5)]
    assert info.files == 7


def test_an_output_below_its_input_resumes(tmp_path: Path):
    fields = {"input": (str(tmp_path),), "output": str(tmp_path / "out")}
    storage.write_bytes(str(tmp_path / "a.mp4"), b"x")
    storage.write_bytes(str(tmp_path / "out2" / "b.mp4"), b"x")
    begun = artifact.begin("clips", Example(**fields))
    storage.write_bytes(begun.path("clips", "a.parquet"), b"data")
    again = artifact.begin("clips", Example(**fields))
    assert (again.state, again.fingerprint) == (State.RESUMED, begun.fingerprint)
    storage.write_bytes(str(tmp_path / "out2" / "c.mp4"), b"x")
    with pytest.raises(UserError, match="contents of its inputs"):
        artifact.begin("clips", Example(**fields))


@pytest.mark.parametrize("name", [artifact.MARKER, artifact.UNFINISHED])
def test_work_of_another_version_is_refused_with_what_to_do(tmp_path: Path, name: str):
    was = {"kind": "clips", "fingerprint": "0" * 16, "files": []}
    storage.write_json(str(tmp_path / "out" / name), was)
    said = r"another version .*schema 1, .*remove this directory or give another output"
    with pytest.raises(UserError, match=said):
        artifact.begin("clips", config(tmp_path))
    if name == artifact.MARKER:
        with pytest.raises(UserError, match=said):
            artifact.read(str(tmp_path / "out"))


def test_inputs_are_looked_at_once(tmp_path: Path, monkeypatch):
    artifact.begin("clips", config(tmp_path))
    listed: list[str] = []
    walk = storage.walk
    monkeypatch.setattr(
        storage, "walk", lambda uri, **more: listed.append(uri) or walk(uri, **more)
    )
    found = artifact.look("clips", config(tmp_path))
    artifact.begin("clips", config(tmp_path), found)
    assert listed == [str(tmp_path / "in")]


@pytest.mark.parametrize("done", [False, True])
def test_a_changed_config_is_refused_and_named(tmp_path: Path, done: bool):
    finished(tmp_path) if done else artifact.begin("clips", config(tmp_path))
    with pytest.raises(UserError, match=r"changed: steps"):
        artifact.begin("clips", config(tmp_path, steps=2))
    with pytest.raises(UserError, match="kind 'clips'"):
        artifact.begin("tokens", config(tmp_path))


def test_a_changed_input_is_refused(tmp_path: Path):
    finished(tmp_path)
    storage.write_bytes(str(tmp_path / "in" / "new.mp4"), b"x")
    with pytest.raises(UserError, match="contents of its inputs"):
        artifact.begin("clips", config(tmp_path))


@pytest.mark.parametrize("size", [100, 70 << 20])
@pytest.mark.parametrize("where", ["artifact", "directory", "file"])
def test_weights_trained_anew_are_another_input(tmp_path: Path, where: str, size: int):
    made = {"input": ((tmp_path / "in").as_uri(),), "output": str(tmp_path / "made")}
    (tmp_path / "in").mkdir()
    weights = tmp_path / "made" / "model.safetensors"
    asked = config(tmp_path, input=(str(weights if where == "file" else weights.parent),))
    seen = set()
    for seed in range(2):
        storage.remove(str(weights.parent))
        output = artifact.begin("model", Example(**made)) if where == "artifact" else None
        weights.parent.mkdir(exist_ok=True)
        weights.write_bytes(bytes([seed]) * size)
        if output is not None:
            artifact.finish(output, "model", {}, time.monotonic())
        seen.add(artifact.fingerprint("clips", asked))
        assert artifact.fingerprint("clips", asked) in seen
    assert len(seen) == 2


def test_a_model_says_what_its_weights_are(tmp_path: Path):
    assert finished(tmp_path / "data").weights == {}
    output = artifact.begin("model", config(tmp_path / "model"))
    for name in ("model.safetensors", "config.json", "checkpoints/other.safetensors"):
        storage.write_bytes(output.path(name), b"x")
    info = artifact.finish(output, "model", {}, time.monotonic())
    assert info.weights == dict.fromkeys(("config.json", "model.safetensors"),
                                         hashlib.sha256(b"x").hexdigest())  # fmt: skip
    assert info.identity.startswith(f"{info.fingerprint}-")
    assert artifact.read(output.uri) == info


def test_what_is_no_path_counts_by_its_name(tmp_path: Path):
    class Hub(Example):
        input_keys: ClassVar[tuple[str, ...]] = ("input", "weights")
        weights: str = ""

    one, other = (
        artifact.fingerprint("clips", Hub(**config(tmp_path).model_dump(), weights=name))
        for name in ("owner/name", "owner/other")
    )
    assert one != other


def test_resources_and_place_do_not_count(tmp_path: Path):
    a = artifact.fingerprint("clips", config(tmp_path))
    b = config(tmp_path, output=str(tmp_path / "else"), resources=Resources(workers=9))
    assert artifact.fingerprint("clips", b) == a
    assert artifact.fingerprint("clips", config(tmp_path, seed=1)) != a


def test_where_a_run_is_tracked_does_not_count(tmp_path: Path):
    artifact.begin("clips", config(tmp_path))
    artifact.begin("clips", config(tmp_path, run=Run(tracking="elsewhere")))
    with pytest.raises(UserError, match=r"changed: run\.steps\)"):
        artifact.begin("clips", config(tmp_path, run=Run(tracking="elsewhere", steps=2)))


class Older(JobConfig):
    """`Example` before it had `run`."""

    steps: int = 1


@pytest.mark.parametrize("done", [False, True])
def test_work_of_a_version_with_fewer_keys_goes_on(tmp_path: Path, done: bool):
    fields = {"input": (str(tmp_path / "in"),), "output": str(tmp_path / "out")}
    config(tmp_path)  # makes the input
    begun = artifact.begin("clips", Older(**fields))
    if done:
        artifact.finish(begun, "clips", {}, time.monotonic())
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = {"input": (str(tmp_path / "moved"),)}
    with pytest.raises(UserError, match=r"changed: input, run.steps\)"):
        artifact.begin("clips", config(tmp_path, run=Run(steps=2), **moved))
    for _ in range(2):  # what the first leaves behind is gone on with too
        again = artifact.begin("clips", config(tmp_path, **moved))
        assert again.state is (State.FINISHED if done else State.RESUMED)
    storage.write_bytes(str(tmp_path / "moved" / "new.mp4"), b"x")
    with pytest.raises(UserError, match=r"changed: input|contents of its inputs"):
        artifact.begin("clips", config(tmp_path, **moved))


def test_work_of_a_version_with_more_keys_is_refused(tmp_path: Path):
    artifact.begin("clips", config(tmp_path))
    fields = {"input": (str(tmp_path / "in"),), "output": str(tmp_path / "out")}
    with pytest.raises(UserError, match=r"changed: run\)"):
        artifact.begin("clips", Older(**fields))


def test_files_of_something_else_are_not_written_over(tmp_path: Path):
    storage.write_bytes(str(tmp_path / "out" / "thesis.txt"), b"precious")
    with pytest.raises(UserError, match="something else"):
        artifact.begin("clips", config(tmp_path))


def test_wrong_kind_and_missing_are_named(tmp_path: Path):
    finished(tmp_path)
    with pytest.raises(UserError, match="expected tokens"):
        artifact.read(str(tmp_path / "out"), ("tokens",))
    with pytest.raises(UserError, match="no artifact here"):
        artifact.read(str(tmp_path / "nowhere"))


MARKERS = {
    "list": "[1, 2]",
    "text": '"clips"',
    "deep": '{"schema_version": 2, "kind": ' + "[" * 500 + "]" * 500 + "}",
    "too deep to read": "[" * 99_999,
    "cut": '{"kind": "cli',
    "no text": "\udcff\udcfe",
    "long version": '{"schema_version": "' + "2" * 9999 + '"}',
}


@pytest.mark.parametrize("name", [artifact.MARKER, artifact.UNFINISHED])
@pytest.mark.parametrize("kind", MARKERS)
def test_a_marker_that_is_none_is_refused_in_one_line(kind: str, name: str, tmp_path: Path):
    file = tmp_path / "out" / name
    file.parent.mkdir()
    file.write_bytes(MARKERS[kind].encode(errors="surrogateescape"))
    asked: list[Callable[[], object]] = [lambda: artifact.look("clips", config(tmp_path))]
    if name == artifact.MARKER:
        asked.append(lambda: artifact.read(str(tmp_path / "out")))
    for ask in asked:
        with pytest.raises(UserError, match=r"^\S+/out") as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "changes",
    [{"counts": [1]}, {"files": "3"}, {"kind": ["clips"]}, {"counts": {"a": {}}}, {"more": 1}],
)
def test_values_of_a_marker_have_their_types(changes: dict, tmp_path: Path):
    info = asdict(finished(tmp_path))
    storage.write_json(str(tmp_path / "out" / artifact.MARKER), info | changes)
    with pytest.raises(UserError, match=r"artifact\.json: not an artifact marker of schema 2"):
        artifact.read(str(tmp_path / "out"), ("clips",))


def test_a_summary_has_what_is_needed_of_it(tmp_path: Path):
    finished(tmp_path)
    uri = str(tmp_path / "out")
    assert artifact.summary(uri, clips=int, note=str) == {"clips": 3, "note": "x"}
    assert artifact.summary(uri, clips=float)["clips"] == 3
    with pytest.raises(UserError, match=r"summary\.json: fps is None; expected float"):
        artifact.summary(uri, fps=float)
    with pytest.raises(UserError, match=r"summary\.json: note is 'x'; expected dict"):
        artifact.summary(uri, note=dict)
    (tmp_path / "out" / "summary.json").write_text("[]")
    with pytest.raises(UserError, match=r"summary\.json: holds list; expected a map"):
        artifact.summary(uri)


@pytest.mark.parametrize("text", ["a: !!bool x", "&a [*a]", "3", "steps: 2024-01-01"])
def test_a_config_that_is_none_beside_a_marker_is_one_line(text: str, tmp_path: Path):
    artifact.begin("clips", config(tmp_path))
    (tmp_path / "out" / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config file \S+/out/config\.yaml: ") as caught:
        artifact.begin("clips", config(tmp_path, steps=2))
    assert "\n" not in str(caught.value)
