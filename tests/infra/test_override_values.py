"""Override values: text stays what was typed, and everything else is YAML."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from infra import config
from infra.config import JobConfig, Section
from infra.errors import UserError
from infra.override_values import parse

PRINTED = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1)


class Red(Section):
    kind: Literal["red"] = "red"
    weights: str | None = None


class Blue(Section):
    kind: Literal["blue"] = "blue"
    weights: str = ""
    depth: int = 1


class Keys(JobConfig):
    prompt: str = ""
    prompts: tuple[str, ...] = ()
    model: Annotated[Red | Blue, Field(discriminator="kind")] = Red()
    stages: tuple[Blue, ...] = ()
    either: str | int = 0
    free: dict[str, Any] = Field(default={})
    colours: tuple[str, ...] | None = None
    several: tuple[str | Blue, ...] = ()


def loaded(*overrides: str) -> Keys:
    return config.load(Keys, [], ["input=/in", "output=/out", *overrides])


@given(PRINTED.filter(lambda text: text[0] not in "'\""))
def test_text_is_taken_letter_by_letter(text: str) -> None:
    assert parse(text, str) == text
    assert loaded(f"prompt={text}").prompt == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a #1",
            "#1",
            "An animated film: a squirrel",
            "A clown fish.",
            "yes",
            "null",
            "1e3",
            "007",
        ),
        *(
            "2026-02-31",
            "2026-02-03",
            "[a",
            "{a: 1}",
            "- a",
            "*star",
            "&anchor",
            "%",
            "a\\b",
            "=",
            "",
        ),
    ],
)
def test_no_grammar_reads_a_text(text: str) -> None:
    assert loaded(f"prompt={text}").prompt == text
    if text != "null":  # of a model that is red it says that there are none
        assert loaded("model.kind=blue", f"model.weights={text}").model.weights == text
    assert loaded("stages=[{}]", f"stages.0.weights={text}").stages[0].weights == text


def test_paths_keep_what_yaml_takes_for_a_comment() -> None:
    settings = config.load(Keys, [], ["input=/My films #2", "output=/run #2: again"])
    assert (settings.input, settings.output) == (("/My films #2",), "/run #2: again")
    assert config.load(Keys, [], ["input=[/a,/b]", "output=/o"]).input == ("/a", "/b")


def test_quotes_around_a_whole_text_are_yamls() -> None:
    assert loaded("prompt='null'").prompt == "null"
    assert loaded('prompt="two\\nlines"').prompt == "two\nlines"
    assert loaded("prompt='It's here'").prompt == "'It's here'"


def test_what_is_no_text_is_yaml() -> None:
    assert loaded("model={kind: blue, depth: 3}").model == Blue(depth=3)
    assert loaded("model.kind=blue", "model.depth=2").model == Blue(depth=2)
    assert loaded("model.kind=red", "model.weights=null").model == Red()
    assert loaded("either=3").either == 3
    assert loaded("either=x #3").either == "x #3"
    assert loaded("free.note=a #1", "free.rate=2.5").free == {"note": "a #1", "rate": 2.5}
    assert loaded("free={a: 1}").free == {"a": 1}
    assert loaded("several=[a, {kind: blue}]").several == ("a", Blue())
    assert loaded("prompts=A fox: it sleeps.").prompts == ("A fox: it sleeps.",)
    assert loaded("several=A clown fish #2").several == ("A clown fish #2",)
    assert loaded("colours=null").colours is None
    assert loaded("colours=[red, 'no']").colours == ("red", "no")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[An animated film: a squirrel]", "{'An animated film': 'a squirrel'} is not text"),
        ("[yes, b]", "True is not text; put each item in quotes"),
        ("[/a #1, /b]", "not a list in YAML; put items that hold ' #'"),
    ],
)
def test_a_list_of_texts_that_yaml_misreads_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded(f"prompts={text}")
    with pytest.raises(UserError, match="put "):
        loaded(f"several={text}")
    assert said in str(caught.value)
    assert str(caught.value).startswith("override 'prompts=")
