"""Trees of values: what YAML and JSON can hold and nobody else is refused in one line."""

import pytest

from infra import config, storage, trees
from infra.config import Section
from infra.errors import UserError

BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + below] * 10)}]\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = {
    "tag of Python": ("a: !!python/object/apply:os.system [id]", "could not determine"),
    "unknown tag": ("a: !mine 3", "could not determine a constructor"),
    "date": ("a: 2024-01-01", "a: a date is not allowed"),
    "no date": ("a: 2024-02-31", "not YAML: day is out of range"),
    "set": ("a: !!set {b, c}", "a: a set is not allowed"),
    "bytes": ("a: [!!binary aGk=]", r"a\.0: a bytes is not allowed"),
    "tagged bool": ("a: !!bool x", "not YAML"),
    "tagged int": ("a: !!int x", "not YAML"),
    "tagged float": ("a: !!float x", "not YAML"),
    "tagged time": ("a: !!timestamp x", "not YAML"),
    "tagged list": ("a: !!omap 3", "not YAML"),
    "tagged key": ("{? 2024-01-01 : 3}", "a key that is a date is not allowed"),
    "long number": ("a: " + "9" * 5000, "not YAML"),
    "long hexadecimal": ("a: 0x" + "f" * 5000, "a: a whole number of 20000 bits is too large"),
    "cycle": ("a: &a [*a]", "a: more than 100 lists and maps within each other"),
    "cycle of maps": ("a: &a {b: {c: *a}}", "a: more than 100 lists"),
    "deep": ("a: " + "[" * 200 + "]" * 200, "a: more than 100 lists"),
    "very deep": ("a: " + "[" * 20_000, "not YAML"),
    "bomb": (BOMB, "holds more than 1,000,000 values"),
    "not text": ("a: \0", "not YAML"),
}


class Example(Section):
    a: int = 0


@pytest.mark.parametrize("kind", YAML)
def test_yaml_that_is_no_plain_tree_is_refused_in_one_line(kind: str, tmp_path) -> None:
    text, message = YAML[kind]
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        config.load(Example, [file])
    assert str(caught.value).startswith(f"config file {file}: ")
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_yaml_that_is_not_text_at_all(tmp_path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\x00\x01")
    with pytest.raises(UserError, match="not YAML"):
        config.load(Example, [tmp_path / "a.yaml"])


@pytest.mark.parametrize(
    "value", ["&a [*a]", "&a {b: *a}", "!!bool x", "[" * 5000, "0x" + "f" * 9999]
)
def test_an_override_that_is_no_plain_tree_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^a: '.* is not allowed") as caught:
        config.load(Example, [], [f"a={value}"])
    assert len(str(caught.value)) < 600


def test_aliases_that_stand_for_little_are_read(tmp_path) -> None:
    assert trees.of_yaml("a: &a {c: 1}\nb: {<<: *a, d: *a}") == {
        "a": {"c": 1},
        "b": {"c": 1, "d": {"c": 1}},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds list; expected a map"),
        ("null", "holds NoneType; expected a map"),
        ('"a"', "holds str; expected a map"),
        ('{"a":' * 99_999, "not JSON"),
        ('{"a":' * 200 + "1" + "}" * 200, "a: more than 100 lists and maps within each other"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ("\udcff", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_that_is_no_map_is_refused_in_one_line(text: str, message: str, tmp_path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as caught:
        storage.read_map(str(file))
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value)) < 600
