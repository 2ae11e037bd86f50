"""How values are read and shown: the normal form does what its docstring says, what is shown can be kept."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.errors import EvaluatorError
from llmops.evaluators.texts import as_text, normal_form, shown, storable


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("  Billing \n", "billing"),
        ("two\t words", "two words"),
        ("“Shipping”.", "shipping"),
        ("**Returns**", "returns"),
        ("`other`", "other"),
        ("(b)", "b"),
        ("Yes!!!", "yes"),
        ("¿Qué?", "qué"),
        ("Ｆｕｌｌ", "full"),
        ("straße", "strasse"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("ﬁne", "fine"),
        ("don't", "don't"),
        ("a, b.", "a, b"),
        ("-5", "-5"),
        (".5", ".5"),
        ("5%", "5%"),
        ("C#", "c#"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_normal_form_drops_what_carries_no_meaning_and_nothing_else(text: str, form: str) -> None:
    assert normal_form(text) == form


@settings(deadline=None)
@given(
    st.text("aBzÄß 5", min_size=1).filter(str.strip),
    st.sampled_from(['"{}"', "  {}.\n", "**{}**!", "(“{}”)"]),
)
def test_normal_form_ignores_case_and_space_and_quotes_around(text: str, around: str) -> None:
    assert normal_form(around.format(text)) == normal_form(text)
    assert normal_form(text.upper()) == normal_form(text.lower()) == normal_form(text)


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N", "Zs", "P"])))
def test_normal_form_is_its_own_normal_form(text: str) -> None:
    assert normal_form(normal_form(text)) == normal_form(text)


@settings(deadline=None)
@given(st.text(st.sampled_from("aé\u0301\u0327\u0328ﬁ Ａ"), max_size=60))
def test_normal_form_agrees_with_unicode_where_marks_are_few(text: str) -> None:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    marks = max(map(len, "".join("m" if unicodedata.combining(c) else " " for c in text).split()), default=0)
    if marks <= 30:
        assert normal_form(text) == " ".join(folded.split())


@pytest.mark.parametrize(
    ("value", "text"),
    [("as it is\n", "as it is\n"), ({"b": 1, "a": [None]}, '{"a":[null],"b":1}'), (True, "true")],
)
def test_text_is_itself_and_all_else_its_canonical_json(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_what_is_no_json_value_is_an_error(value: Any) -> None:
    with pytest.raises(EvaluatorError, match="is no JSON value"):
        as_text([value])


def test_nesting_without_end_is_an_error() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(EvaluatorError, match="is no JSON value"):
        as_text(value)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[])) | st.dictionaries(st.text(), st.text()))
def test_what_is_shown_is_short_and_can_be_kept(value: Any) -> None:
    assert len(shown(value)) < 1000
    assert "\n" not in shown(value)
    assert shown(value).encode()


def test_long_text_is_cut_with_a_sign_of_it() -> None:
    assert shown("x" * 81) == "'" + "x" * 80 + "'…"
    assert shown("x" * 80) == "'" + "x" * 80 + "'"
    assert shown(["x" * 100]).endswith("x…")


def test_lone_surrogates_are_written_out_and_other_text_is_kept() -> None:
    assert storable("é\ud800") == "é\\ud800"
