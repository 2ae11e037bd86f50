"""Equality of JSON values, and whether a text is contained."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.errors import EvaluatorError
from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Subject
from llmops.evaluators.exact import is_same

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmops.evaluators.base import Judgement

    Judge = Callable[..., Judgement]

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("billing", "billing", 1),
        ("billing\n", "billing", 1),
        ("billing", "billing\r\n", 1),
        ("billing\n\n", "billing", 0),
        ("billing\r", "billing", 0),
        (" billing", "billing", 0),
        ("Billing", "billing", 0),
        ("", "billing", 0),
        (None, "billing", 0),
        (1, 1.0, 1),
        (True, 1, 0),
        (0, False, 0),
        (True, True, 1),
        ("1", 1, 0),
        (2**60, 2**60 + 1, 0),
        ({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]}, 1),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 1),
        ({"a": None}, {"b": None}, 0),
        ([1, 2], [2, 1], 0),
        ([1, True], [1, 1], 0),
        ([1], [1, 1], 0),
    ],
)
def test_exact_match_is_equality_of_json_values(judge: Judge, output: Any, expected: Any, value: int) -> None:
    assert judge("exact_match", output, expected).value == value


@settings(max_examples=50, deadline=None)
@given(JSON_VALUES, JSON_VALUES)
def test_a_value_is_the_same_after_json_and_both_ways_round_and_never_its_own_list(
    first: Any, second: Any
) -> None:
    assert is_same(first, json.loads(json.dumps(first)))
    assert is_same(first, second) == is_same(second, first)
    assert not is_same([first], first)


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        (" “Billing”. ", "billing", 1),
        ({"team": "BILLING"}, {"team": "billing"}, 1),
        ({"Team": "billing"}, {"team": "billing"}, 0),
        (["A.", 1], ["a", 1], 1),
        ("-5", "5", 0),
        ("?", "!", 0),
    ],
)
def test_normalise_compares_texts_wherever_they_stand(
    judge: Judge, output: Any, expected: Any, value: int
) -> None:
    assert judge("exact_match", output, expected, normalise=True).value == value


@pytest.mark.parametrize(
    ("output", "accepted", "value"),
    [("b", ["a", "b"], 1), ("c", ["a", "b"], 0), (["a", "b"], ["a", "b"], 0), ([1], [[1], [2]], 1)],
)
def test_any_of_takes_each_answer_by_itself(judge: Judge, output: Any, accepted: Any, value: int) -> None:
    assert judge("exact_match", output, accepted, any_of=True).value == value
    assert judge("exact_match", output, accepted).value == float(output == accepted)


@pytest.mark.parametrize("expected", ["a", [], {"a": 1}])
def test_any_of_needs_a_list_of_answers(judge: Judge, expected: Any) -> None:
    with pytest.raises(EvaluatorError, match="'case-1': expected must be a list of accepted answers"):
        judge("exact_match", "a", expected, any_of=True)


@pytest.mark.parametrize(
    ("output", "expected", "rationale"),
    [
        ("shipping", "billing", "'shipping' is not 'billing'"),
        ("3", 3, "text '3' is not the number 3"),
        ({"a": 1}, "x", "object {\"a\":1} is not the text 'x'"),
        ([], True, "array [] is not the boolean true"),
    ],
)
def test_a_mismatch_says_what_differs(judge: Judge, output: Any, expected: Any, rationale: str) -> None:
    assert judge("exact_match", output, expected).rationale == rationale
    assert judge("exact_match", expected, expected).rationale is None


def test_a_mismatch_of_several_answers_says_how_many(judge: Judge) -> None:
    found = judge("exact_match", "c", ["a", "b"], any_of=True)
    assert found.rationale == "'c' is none of the 2 accepted answers"


def test_nesting_without_end_is_an_error(judge: Judge) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(EvaluatorError, match="nested too deeply"):
        judge("exact_match", value, [value])


@pytest.mark.parametrize(
    ("output", "options", "value", "rationale"),
    [
        ("we refund you", {"text": "refund"}, 1, "found 'refund'"),
        ("we Refund you", {"text": "refund"}, 0, "missing 'refund'"),
        ("we Refund you", {"text": "rEFUND", "ignore_case": True}, 1, "found 'rEFUND'"),
        ("STRASSE", {"text": "straße", "ignore_case": True}, 1, "found 'straße'"),
        ("a b", {"all": ["a", "b"]}, 1, "found 'a', 'b'"),
        ("a", {"all": ["a", "b", "c"]}, 0, "found 'a'; missing 'b', 'c'"),
        ("b", {"any": ["a", "b"]}, 1, "found 'b'; missing 'a'"),
        ("", {"any": ["a", "b"]}, 0, "missing 'a', 'b'"),
        ({"team": "billing"}, {"text": '"team":"bill'}, 1, 'found \'"team":"bill\''),
        (None, {"text": "null"}, 1, "found 'null'"),
    ],
)
def test_contains_says_what_is_found_and_what_is_missing(
    judge: Judge, output: Any, options: dict[str, Any], value: int, rationale: str
) -> None:
    found = judge("contains", output, **options)
    assert (found.value, found.rationale) == (value, rationale)


def test_contains_without_texts_of_its_own_takes_the_expected_one(judge: Judge) -> None:
    with_its_own: Any = open_evaluator("contains", {"text": "x"})
    without: Any = open_evaluator("contains", {})
    assert (with_its_own.needs_expected, without.needs_expected) == (False, True)
    assert judge("contains", "yes, billing", "billing").value == 1
    for expected in ("", ["billing"], 3):
        with pytest.raises(EvaluatorError, match="expected must be a text that is not empty"):
            judge("contains", "yes", expected)


@pytest.mark.parametrize(
    "options", [{"text": "a", "any": ["b"]}, {"text": ""}, {"all": []}, {"any": ["a", ""]}, {"all": [""]}]
)
def test_contains_refuses_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        open_evaluator("contains", options)


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text(min_size=1), st.text())
def test_text_contains_every_part_of_itself(before: str, part: str, after: str) -> None:
    for ignore_case in (False, True):
        evaluator = open_evaluator("contains", {"ignore_case": ignore_case})
        subject = Subject("c", {}, before + part + after, part)
        assert asyncio.run(evaluator.judge(subject)).value == 1
