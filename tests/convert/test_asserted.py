"""Assertions of other tools mean here what they meant there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.convert.asserted import TESTS, holds, judge_case, n_edits


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        ("equals", "red", "red", "red "),
        ("equals", {"a": 1}, '{"a": 1.0}', '{"a": true}'),
        ("contains", "ed", "red", "RED"),
        ("icontains", "ED", "red", "green"),
        ("contains-all", ["a", "b"], "ab", "a"),
        ("contains-any", "x, b", "ab", "a"),
        ("icontains-all", ["A", "b"], "aB", "a"),
        ("icontains-any", ["X", "B"], "ab", "a"),
        ("starts-with", "re", "red", "Red"),
        ("istarts-with", "RE", " red", "a red"),
        ("iends-with", "ED", "red\n", "reds"),
        ("regex", r"^\d+$", "12", "12a"),
        ("is-json", None, "[1]", "```[1]```"),
        ("is-json", {"type": "array"}, "[1]", "{}"),
        ("contains-json", None, 'so: {"a": 1}.', "so: {a}"),
        ("contains-json", {"required": ["b"]}, '{"a": 1} {"b": 2}', '{"a": 1}'),
        ("word-count", {"min": 2, "max": 3}, "one two", "one"),
        ("word-count", 2, "one two", "one two three"),
        ("match", ["Paris", "Lutetia"], "Paris, of course", "It is Paris"),
        ("includes", ["b", "c"], "abc", "a"),
        ("iincludes", "B", "abc", "a"),
        ("fuzzy-match", "The Danube!", "danube", "rhine"),
        ("fuzzy-match", "a", "the", "x"),
    ],
)
def test_an_assertion_holds_of_the_one_and_not_of_the_other(kind: str, value: Any, yes: Any, no: Any) -> None:
    assert holds({"type": kind, "value": value}, yes)
    assert not holds({"type": kind, "value": value}, no)
    assert not holds({"type": f"not-{kind}", "value": value}, yes)
    assert holds({"type": f"not-{kind}", "value": value}, no)


def test_every_known_assertion_is_tested_above_or_below() -> None:
    marks = test_an_assertion_holds_of_the_one_and_not_of_the_other.pytestmark
    assert {row[0] for row in marks[0].args[1]} | {"levenshtein"} == {*TESTS}


def test_levenshtein_allows_five_edits_or_as_many_as_are_said() -> None:
    assert holds({"type": "levenshtein", "value": "kitten"}, "sitting")
    assert not holds({"type": "levenshtein", "value": "kitten", "threshold": 2}, "sitting")


def edits_by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a or b)
    if a[0] == b[0]:
        return edits_by_definition(a[1:], b[1:])
    return 1 + min(
        edits_by_definition(a[1:], b), edits_by_definition(a, b[1:]), edits_by_definition(a[1:], b[1:])
    )


@given(a=st.text("ab", max_size=5), b=st.text("ab", max_size=5))
def test_edits_are_those_of_the_definition(a: str, b: str) -> None:
    assert n_edits(a, b) == edits_by_definition(a, b)


def test_an_unknown_assertion_is_refused() -> None:
    with pytest.raises(ValueError, match="moderation"):
        holds({"type": "moderation"}, "x")


def test_a_case_passes_when_all_hold_or_enough_by_weight() -> None:
    asserts = [
        {"type": "contains", "value": "a", "weight": 3},
        {"type": "contains", "value": "b"},
        {"type": "contains", "value": "c", "weight": 0},
    ]
    found = judge_case("a", {"asserts": asserts})
    assert (found["score"], found["share"], found["rationale"]) == (0.0, 0.75, "failed: contains")
    assert judge_case("a", {"asserts": asserts, "threshold": 0.75})["score"] == 1.0
    assert judge_case("ab", {"asserts": asserts})["score"] == 1.0, "what weighs nothing cannot fail it"


def test_a_case_that_asserts_nothing_passes_as_it_does_in_promptfoo() -> None:
    assert judge_case("x", {}) == {
        "score": 1.0,
        "share": 1.0,
        "rationale": "nothing is asserted of this case",
    }


def test_a_pattern_that_would_never_end_ends() -> None:
    assert not holds({"type": "regex", "value": "(a+)+$"}, "a" * 5_000 + "!")
