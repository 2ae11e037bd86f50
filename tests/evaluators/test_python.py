"""The project's own functions: what they may take, what they may return, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.errors import EvaluatorError
from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Judgement, Subject
from llmops.records import Span, Status

if TYPE_CHECKING:
    from collections.abc import Callable

SUBJECT = Subject(
    case_id="case-1",
    inputs={"ticket": "where is it?"},
    output="shipping",
    expected="billing",
    metadata={"tags": ["vip"]},
    status=Status.TRUNCATED,
    spans=(Span(index=0, parent=None, name="ask", kind="prompt", inputs={}),),
)


def judged(function: Callable[..., Any], **options: Any) -> Judgement:
    options = {"function": "rules:judge", **options}
    return asyncio.run(open_evaluator("python", options, function=function).judge(SUBJECT))


def returning(value: Any) -> Callable[[], Any]:
    return lambda: value


@pytest.mark.parametrize(
    ("returned", "judgement"),
    [
        (True, Judgement(1.0)),
        (False, Judgement(0.0)),
        (1, Judgement(1.0)),
        (0.25, Judgement(0.25)),
        (Fraction(1, 4), Judgement(0.25)),
        (np.bool_(True), Judgement(1.0)),
        (np.float32(0.5), Judgement(0.5)),
        (None, Judgement(None)),
        ({"tone": 0.5}, Judgement(0.5)),
        ({"score": True}, Judgement(1.0)),
        ({"score": 0.5, "tone": 1, "style": False}, Judgement(0.5, parts={"tone": 1.0, "style": 0.0})),
        ({"score": 1, "rationale": "polite"}, Judgement(1.0, "polite")),
        ({"tone": 1, "rationale": "polite"}, Judgement(1.0, "polite")),
        ({"score": None, "rationale": "no idea"}, Judgement(None, "no idea")),
        ({"score": 1, "tone": None}, Judgement(1.0)),
        ({"score": 1, "rationale": "\ud800"}, Judgement(1.0, "\\ud800")),
    ],
)
def test_what_a_function_may_return(returned: Any, judgement: Judgement) -> None:
    assert judged(returning(returned)) == judgement


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("good", "must return a boolean, a number, a dict of them or None, not str"),
        ([1], "a dict of them or None, not list"),
        (np.ones(2), "not ndarray"),
        (1 + 2j, "not complex"),
        (float("nan"), "returned nan, which is no score"),
        (float("-inf"), "returned -inf, which is no score"),
        (10**400, "returned inf, which is no score"),
        (np.float64("nan"), "returned nan, which is no score"),
        (3.5, "returned 3.5, outside 0 to 1; declare `range: [low, high]` or `range: open`"),
        ({"score": 1, "tone": 7}, "returned 7, outside 0 to 1"),
        ({"score": 1, "tone": "good"}, "not str"),
        ({}, "must say which of 0 numbers is its score"),
        ({"rationale": "polite"}, "must say which of 0 numbers is its score"),
        ({"tone": 1, "style": 1}, "must say which of 2 numbers is its score"),
        ({"score": 1, "rationale": 3}, "its rationale as text"),
        ({1: 1}, "must return names as keys"),
    ],
)
def test_what_a_function_may_not_return_is_an_error_with_its_name(returned: Any, message: str) -> None:
    with pytest.raises(EvaluatorError) as caught:
        judged(returning(returned))
    assert str(caught.value).startswith("rules:judge ")
    assert message in str(caught.value)


def test_a_function_gets_what_its_parameters_name() -> None:
    seen: dict[str, Any] = {}

    def takes_some(output: str, *, metadata: dict[str, Any], limit: int = 3) -> bool:
        seen.update(output=output, metadata=metadata, limit=limit)
        return True

    def takes_all(**everything: Any) -> bool:
        seen.update(everything)
        return True

    assert judged(takes_some).value == 1
    assert seen == {"output": "shipping", "metadata": {"tags": ["vip"]}, "limit": 3}
    seen.clear()
    assert judged(takes_all).value == 1
    assert seen == {
        "output": "shipping",
        "expected": "billing",
        "inputs": {"ticket": "where is it?"},
        "metadata": {"tags": ["vip"]},
        "case_id": "case-1",
        "spans": SUBJECT.spans,
        "status": Status.TRUNCATED,
    }


def test_an_async_function_is_awaited() -> None:
    async def slowly(output: str) -> float:
        await asyncio.sleep(0)
        return len(output) / 10

    assert judged(slowly).value == 0.8


def test_what_a_function_changes_is_its_own_copy() -> None:
    def greedy(metadata: dict[str, Any], inputs: dict[str, Any]) -> int:
        metadata["tags"].append("seen")
        inputs.clear()
        return len(metadata["tags"])

    assert judged(greedy, range=[0, 5]).value == 2
    assert judged(greedy, range=[0, 5]).value == 2
    assert SUBJECT.metadata == {"tags": ["vip"]}
    assert SUBJECT.inputs == {"ticket": "where is it?"}


def raising() -> NoReturn:
    raise KeyError("team\nand a second line")


def leaving() -> NoReturn:
    sys.exit("bye")


async def raising_later() -> NoReturn:
    raise ValueError("\ud800 is odd\nTraceback")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, r"rules:judge raised KeyError: 'team\nand a second line'"),
        (leaving, "rules:judge raised SystemExit: bye"),
        (raising_later, "rules:judge raised ValueError: \\ud800 is odd"),
    ],
)
def test_what_a_function_raises_is_one_line_with_its_name(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(EvaluatorError) as caught:
        judged(function)
    assert str(caught.value) == message
    assert caught.value.__cause__ is not None


def test_cancelling_passes_through() -> None:
    async def never(output: str) -> float:
        await asyncio.Event().wait()
        return 1.0

    async def cancel() -> None:
        evaluator = open_evaluator("python", {"function": "rules:judge"}, function=never)
        await asyncio.wait_for(evaluator.judge(SUBJECT), timeout=0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(cancel())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda outpt: outpt, r"wants 'outpt', .*did you mean 'output'\?"),
        (lambda x, output: (x, output), "wants 'x', .*a score sees output, expected, inputs"),
        (lambda output, /: output, "wants 'output', by position"),
    ],
)
def test_a_parameter_that_cannot_be_filled_is_refused_before_anything_runs(
    function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_evaluator("python", {"function": "rules:judge"}, function=function)


def test_a_declared_range_is_the_evaluators_own() -> None:
    for limits, ends in [([1, 5], (1.0, 5.0)), ("open", (None, None))]:
        options = {"function": "rules:judge", "range": limits}
        evaluator = open_evaluator("python", options, function=returning(1))
        assert (evaluator.low, evaluator.high) == ends
    assert judged(returning(-1e9), range="open").value == -1e9
    with pytest.raises(EvaluatorError, match="returned 0, outside 1 to 5"):
        judged(returning(0), range=[1, 5])


@pytest.mark.parametrize("limits", [[1, 1], [5, 1], [0], [0, 1, 2], "any", [0, float("inf")]])
def test_a_range_that_is_none_is_refused(limits: Any) -> None:
    with pytest.raises(ValidationError):
        open_evaluator("python", {"function": "f:f", "range": limits}, function=returning(1))


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False), st.floats(-100, 100), st.floats(0.1, 100))
def test_a_number_is_a_score_exactly_when_it_lies_in_the_range(
    number: float, low: float, width: float
) -> None:
    try:
        value = judged(returning(number), range=[low, low + width]).value
    except EvaluatorError:
        value = None
    assert value == (number if low <= number <= low + width else None)
