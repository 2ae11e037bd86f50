"""Templates of others as ours: the same text for the same values, and nothing that is filled in by accident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.convert.names import file_name, identifier
from llmops.convert.translate import (
    braces_in,
    from_braces,
    from_mustache,
    from_nunjucks,
    literal,
    renamed,
    turns,
)
from llmops.definitions.base import is_name
from llmops.definitions.schemas import check_name
from llmops.definitions.templates import TemplateError, parse_template, render_text
from llmops.definitions.trees import check_relative


def text_of(template: str, **values: object) -> str:
    return render_text(parse_template(template), values)


@given(text=st.text("ab {}%#'\\\n-", max_size=30))
def test_a_literal_gives_exactly_its_text(text: str) -> None:
    assert text_of(literal(text)) == text


@given(
    parts=st.lists(st.text("a{%# \n", max_size=6), min_size=2, max_size=4),
    value=st.text("x{}%#\n", max_size=6),
)
def test_braces_stand_for_values_and_nothing_else_means_anything(parts: list[str], value: str) -> None:
    safe = [part.replace("{{", "{").rstrip("{").lstrip("}") for part in parts]
    template = from_braces("{{name}}".join(safe), {"name": "name"})
    assert text_of(template, name=value) == value.join(safe)


def test_braces_around_what_is_no_value_stay_text() -> None:
    assert text_of(from_braces("{{ a }} {{b}} {{#c}}", {"a": "x"}), x=1) == "1 {{b}} {{#c}}"
    assert braces_in("{{a}} {{ b c }} {{a}}") == ["a", "b c"]


@pytest.mark.parametrize(
    ("nunjucks", "values", "text"),
    [
        ("{% if a === 1 && b !== 2 %}x{% elseif a || b %}y{% endif %}", {"a": 1, "b": 3}, "x"),
        ("{% if a === 1 && b !== 2 %}x{% elseif a || b %}y{% endif %}", {"a": 2, "b": 3}, "y"),
        ("{{ a | dump }} and a === b", {"a": [1]}, "[1] and a === b"),
        ("{% for k, v in a %}{{ k }}={{ v }};{% endfor %}", {"a": {"x": 1, "y": 2}}, "x=1;y=2;"),
        ("{{ a | safe }}{% if b == null %}!{% endif %}", {"a": "<", "b": None}, "<!"),
        ("{{ 'a && b' }}", {}, "a && b"),
    ],
)
def test_nunjucks_means_the_same_here(nunjucks: str, values: dict[str, object], text: str) -> None:
    assert text_of(from_nunjucks(nunjucks), **values) == text


@pytest.mark.parametrize(
    "template", ["{% include 'x' %}", "{% import 'x' as y %}", "{{ range(3) }}", "{{ a.__class__ }}"]
)
def test_what_templates_may_not_do_here_is_refused(template: str) -> None:
    with pytest.raises(TemplateError):
        from_nunjucks(template)


def test_mustache_prints_values_and_refuses_sections_with_the_line() -> None:
    assert text_of(from_mustache("{{a}} {{{ b.c }}} {{& a }}"), a=1, b={"c": 2}) == "1 2 1"
    with pytest.raises(TemplateError) as raised:
        from_mustache("one\n{{#a}}x{{/a}}")
    assert raised.value.line == 2


def test_names_are_changed_where_they_are_looked_up_and_nowhere_else() -> None:
    template = (
        "output {{ output }} {{ x.output }} {{ 'output' }} {% if output == 1 %}{{ d(output=2) }}{% endif %}"
    )
    assert renamed(template.replace("{{ d(output=2) }}", ""), {"output": "said"}) == (
        "output {{ said }} {{ x.output }} {{ 'output' }} {% if said == 1 %}{% endif %}"
    )


def test_what_cannot_be_renamed_word_by_word_is_refused() -> None:
    with pytest.raises(TemplateError):
        renamed("{{ output }}{% set output = 1 %}{{ output }}", {"output": "said"})


def test_turns_are_split_at_markers_on_lines_of_their_own() -> None:
    text = "system:\nBe kind.\n\n# User:\nHi, system: fine\nassistant[name=x]:\nHello\ntool:\n42\n"
    messages, said = turns(text)
    assert messages == [
        ("system", "Be kind."),
        ("user", "Hi, system: fine"),
        ("assistant", "Hello"),
        ("user", "42"),
    ]
    assert said == ["role tool is user here"]


def test_a_marker_inside_a_loop_stays_text_so_that_no_block_is_cut() -> None:
    messages, said = turns("system:\nA\n{% for t in h %}\nuser:\n{{ t }}\n{% endfor %}\nuser:\nB")
    assert [role for role, _ in messages] == ["system", "user"]
    assert "user:\n{{ t }}" in messages[0][1]
    assert len(said) == 1
    for _, content in messages:
        parse_template(content)


def test_a_role_that_is_filled_in_is_told() -> None:
    assert turns("system:\n{% for t in h %}\n{{ t.role }}:\n{{ t.text }}\n{% endfor %}")[1]


@given(words=st.text(max_size=80), taken=st.sets(st.sampled_from(["a", "b", "converted", "con_"])))
def test_a_file_name_is_safe_whatever_the_words_are(words: str, taken: set[str]) -> None:
    name = file_name(words, taken=taken)
    assert is_name(name) and name not in taken and len(name) <= 70
    check_relative(f"prompts/{name}.prompt.yaml")


@pytest.mark.parametrize(
    "words", ["../../etc/passwd", "/etc", "..", "CON", "nul.txt", "", "☃", "a" * 500, "-rf"]
)
def test_hostile_names_lead_nowhere(words: str) -> None:
    check_relative(f"prompts/{file_name(words)}.prompt.yaml")


@given(
    words=st.text(max_size=20)
    | st.sampled_from(["output", "expected", "steps", "if", "none", "a-b", "1", "_x"])
)
def test_an_identifier_can_be_looked_up(words: str) -> None:
    assert check_name(identifier(words)) == identifier(words)
