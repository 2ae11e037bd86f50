"""Reading numbers out of text, and comparing them exactly."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.errors import EvaluatorError
from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Subject
from llmops.evaluators.number import numbers_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmops.evaluators.base import Judgement

    Judge = Callable[..., Judgement]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("The answer is 42.", ["42"]),
        ("1,234.50", ["1234.5"]),
        ("1,234,567", ["1234567"]),
        ("1'234 and 1’234 and 1_234", ["1234", "1234", "1234"]),
        ("12\u202f345 or 12\u00a0345", ["12345", "12345"]),
        ("1,2 and 1,2345", ["1", "2", "1", "2345"]),
        ("0,123", ["0", "123"]),
        ("1,234'567", ["1", "234", "567"]),
        ("1.234", ["1.234"]),
        ("1.2.3", ["1.2", "3"]),
        ("-5 +5 −5", ["-5", "5", "-5"]),
        ("-1,5", ["-1", "5"]),
        ("10-12", ["10", "12"]),
        ("covid-19", ["19"]),
        ("x = -3", ["-3"]),
        ("$5, -$6, $-7, € 8, 9 €", ["5", "-6", "-7", "8", "9"]),
        ("45% of them", ["45"]),
        ("10k", ["10"]),
        (".5 and -.5", ["0.5", "-0.5"]),
        ("so...5", ["5"]),
        ("1.5e3, 2E-2, 1e+2", ["1500", "1/50", "100"]),
        ("2 × 10^3, 2x10^-1, 2 \\times 10^{2}, 2 \\cdot 10^2", ["2000", "1/5", "200", "200"]),
        ("3/4 and 6/8.", ["3/4", "3/4"]),
        ("1.5/2", ["3/4"]),
        ("10/12/2024", ["10", "12", "2024"]),
        ("5/0", ["5", "0"]),
        ("GPT4, H2O and B12", []),
        ("**42**", ["42"]),
        (r"\boxed{-7}", ["-7"]),
        ("٤٢", ["42"]),
        ("½ and x²", []),
        ("no number, none", []),
        ("", []),
    ],
)
def test_numbers_are_read_as_english_writes_them(text: str, numbers: list[str]) -> None:
    assert [found.value for found in numbers_in(text)] == [Fraction(number) for number in numbers]


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (3, [3]),
        (0.1, [Fraction(1, 10)]),
        (True, []),
        (None, []),
        ([3], []),
        ({"n": 3}, []),
        (float("nan"), []),
    ],
)
def test_of_other_values_only_numbers_are_numbers(value: Any, numbers: list[Any]) -> None:
    assert [found.value for found in numbers_in(value)] == numbers


@settings(max_examples=50, deadline=None)
@given(st.integers(-(10**30), 10**30), st.sampled_from([",", "_", ""]))
def test_a_formatted_integer_reads_back(number: int, mark: str) -> None:
    assert [found.value for found in numbers_in(f"so {number:{mark}} it is")] == [number]


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_float_reads_back(number: float) -> None:
    assert [float(found.value or 0) for found in numbers_in(f"= {number!r}")] == [number]
    assert [found.value for found in numbers_in(number)] == [
        found.value for found in numbers_in(repr(number))
    ]


@pytest.mark.parametrize("text", ["9" * 5000, "1e999", "1e-999", "1e99999999999999999999", "1/" + "9" * 5000])
def test_a_number_that_nothing_can_hold_is_wrong_and_shown_in_short(judge: Judge, text: str) -> None:
    found = judge("number", text, 1)
    assert found.value == 0
    assert found.rationale is not None
    assert "(out of range), expected 1" in found.rationale
    assert len(found.rationale) < 200
    with pytest.raises(EvaluatorError):
        judge("number", 1, text)


def test_an_integer_too_long_for_python_to_write_is_out_of_range(judge: Judge) -> None:
    assert judge("number", 10**5000, 1).value == 0


@pytest.mark.parametrize(
    ("take", "output", "value"),
    [
        ("last", "6 times 7 is 42", 1),
        ("first", "6 times 7 is 42", 0),
        ("first", "42 is 6 times 7", 1),
        ("only", "6 times 7 is 42", 0),
        ("only", "It is 42", 1),
        ("only", "none", 0),
        ("last", 42.0, 1),
        ("only", "42", 1),
    ],
)
def test_take_chooses_the_number(judge: Judge, take: str, output: Any, value: int) -> None:
    assert judge("number", output, 42, take=take).value == value


@pytest.mark.parametrize(
    ("output", "expected", "options", "value"),
    [
        ("0.31", 0.3, {"tolerance": 0.01}, 1),
        ("0.3100001", 0.3, {"tolerance": 0.01}, 0),
        ("0.29", 0.3, {"tolerance": 0.01}, 1),
        ("101", 100, {"relative": 0.01}, 1),
        ("101.01", 100, {"relative": 0.01}, 0),
        ("-99", -100, {"relative": 0.01}, 1),
        ("0.001", 0, {"relative": 0.5}, 0),
        ("0.001", 0, {"relative": 0.5, "tolerance": 0.001}, 1),
        ("101.5", 100, {"relative": 0.01, "tolerance": 1}, 0),
        ("0.75", "3/4", {}, 1),
        ("$1,234.5", "1234.50", {}, 1),
        ("45%", "45%", {}, 1),
        ("45%", 0.45, {}, 0),
        (0.1 + 0.2, 0.3, {}, 0),
        (0.1 + 0.2, 0.3, {"tolerance": 1e-9}, 1),
    ],
)
def test_the_larger_tolerance_counts_and_its_end_belongs_to_it(
    judge: Judge, output: Any, expected: Any, options: dict[str, float], value: int
) -> None:
    assert judge("number", output, expected, **options).value == value


@settings(max_examples=50, deadline=None)
@given(st.fractions(), st.fractions(), st.floats(0, 10), st.floats(0, 10))
def test_a_wider_tolerance_never_turns_right_into_wrong(
    output: Fraction, expected: Fraction, narrow: float, more: float
) -> None:
    subject = Subject("c", {}, str(output), str(expected))
    values = [
        asyncio.run(open_evaluator("number", {"tolerance": tolerance}).judge(subject)).value
        for tolerance in (narrow, narrow + more)
    ]
    assert values[0] is not None
    assert values[1] is not None
    assert values[0] <= values[1]


@pytest.mark.parametrize(
    ("output", "expected", "value", "rationale"),
    [
        (None, None, 1, "no number, expected no number"),
        ("not given", None, 1, "no number, expected no number"),
        ("5", None, 0, "5, expected no number"),
        (None, 5, 0, "no number, expected 5"),
        ({"n": 5}, 5, 0, "no number, expected 5"),
        (True, 1, 0, "no number, expected 1"),
        ("1,000", 5, 0, "1000, expected 5"),
    ],
)
def test_null_means_no_number(judge: Judge, output: Any, expected: Any, value: int, rationale: str) -> None:
    found = judge("number", output, expected)
    assert (found.value, found.rationale) == (value, rationale)


@pytest.mark.parametrize("expected", ["many", "5 or 6", True, [5], {"n": 5}, ""])
def test_an_expected_that_is_not_one_number_is_an_error(judge: Judge, expected: Any) -> None:
    with pytest.raises(EvaluatorError, match="'case-1': expected must be one number or null, not"):
        judge("number", "5", expected)


@pytest.mark.parametrize("options", [{"tolerance": -1}, {"relative": -0.1}, {"take": "middle"}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        open_evaluator("number", options)
