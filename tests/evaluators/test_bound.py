"""An evaluator as an experiment uses it: expressions, absent scores with their reasons, identities, faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmops.definitions.dataset import Case
from llmops.definitions.workspace import load_workspace
from llmops.errors import DefinitionError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.bound import BoundEvaluator, bind_evaluators
from llmops.records import ErrorInfo, Output, Score, Span, Status

CODE = """
def shout(output):
    raise ValueError('::error:: no')

def much(output):
    return 7

def fine(output, expected):
    return output == expected
"""


@pytest.fixture
def bind(project: Callable[..., Path]) -> Callable[..., BoundEvaluator]:
    """Give a function that binds one evaluator, written as in a file."""

    def bind(use: Any) -> BoundEvaluator:
        return bind_all(project, [use])[0]

    return bind


def bind_all(project: Callable[..., Path], uses: list[Any], code: str = CODE) -> tuple[BoundEvaluator, ...]:
    experiment = {"dataset": "d", "variants": {"a": {"prompt": "p"}}, "evaluators": uses}
    files = {"experiments/e.experiment.yaml": json.dumps(experiment, indent=1), "chains/code.py": code}
    return bind_evaluators(load_workspace(project(files)), "e")


def case_of(expected: Any = "red", **fields: Any) -> Case:
    return Case(id="c1", inputs={"ticket": "x"}, expected=expected, metadata={"team": "a"}, **fields)


def output_of(value: Any = "red", **fields: Any) -> Output:
    return Output(cell_id="cell", value=value, created_at=datetime(2026, 1, 1, tzinfo=UTC), **fields)


def score(bound: BoundEvaluator, output: Output, case: Case | None = None) -> Score:
    found = asyncio.run(bound.score(case or case_of(), output))
    assert found is not None
    return found


def span(index: int, parent: int | None, name: str, output: Any) -> Span:
    return Span(index=index, parent=parent, name=name, kind="prompt", inputs={}, output=output)


def test_expressions_pick_what_is_judged(bind: Callable[..., BoundEvaluator]) -> None:
    use = {"exact_match": {"output": "{{ output.team }}", "expected": "{{ metadata.team }}"}}
    assert score(bind(use), output_of({"team": "a"})).value == 1.0
    assert score(bind(use), output_of({"team": "b"})).value == 0.0


def test_expressions_keep_types_and_reach_inputs_and_steps(bind: Callable[..., BoundEvaluator]) -> None:
    use = {"exact_match": {"output": "{{ steps.find.output }}", "expected": "{{ [inputs.ticket, 1] }}"}}
    spans = (
        span(0, None, "chain", "x"),
        span(1, 0, "find", ["x", 1]),
        span(2, 0, "inner", "x"),
        span(3, 2, "find", "a step of another chain"),
    )
    assert score(bind(use), output_of("red", spans=spans)).value == 1.0


def test_an_expression_that_fails_leaves_no_score_and_says_why(bind: Callable[..., BoundEvaluator]) -> None:
    found = score(bind({"exact_match": {"output": "{{ output.team }}"}}), output_of({"other": 1}))
    assert found.value is None
    assert found.error is not None and found.error.startswith("expression: ") and "team" in found.error


def test_a_reply_outside_its_format_scores_lowest_where_an_expression_fails(
    bind: Callable[..., BoundEvaluator],
) -> None:
    found = score(bind({"exact_match": {"output": "{{ output.team }}"}}), output_of("no JSON", valid=False))
    assert found.value == 0.0
    assert "outside its declared format" in str(found.rationale)


@pytest.mark.parametrize("status", [Status.ERROR, Status.UNKNOWN, Status.SKIPPED])
def test_there_is_no_score_before_there_is_an_output(
    bind: Callable[..., BoundEvaluator], status: Status
) -> None:
    assert asyncio.run(bind("exact_match").score(case_of(), output_of(None, status=status))) is None


@pytest.mark.parametrize("status", [Status.FILTERED, Status.REFUSED])
def test_what_was_filtered_or_refused_has_an_absent_score(
    bind: Callable[..., BoundEvaluator], status: Status
) -> None:
    error = ErrorInfo(kind=str(status), message="for violence")
    found = score(bind("exact_match"), output_of(None, status=status, error=error))
    assert (found.value, found.error) == (None, "no output: for violence")


def test_a_crash_scores_lowest_and_an_open_scale_has_no_lowest(bind: Callable[..., BoundEvaluator]) -> None:
    crashed = output_of(None, status=Status.CRASHED, error=ErrorInfo(kind="step", message="KeyError"))
    assert score(bind("exact_match"), crashed).value == 0.0
    assert score(bind({"python": {"function": "code:fine", "range": [-5, 5]}}), crashed).value == -5.0
    assert score(bind({"python": {"function": "code:fine", "range": "open"}}), crashed).value is None


def test_a_crash_is_a_wrong_class_and_not_a_missing_one(bind: Callable[..., BoundEvaluator]) -> None:
    crashed = output_of(None, status=Status.CRASHED, error=ErrorInfo(kind="step", message="KeyError"))
    found = score(
        bind({"classification": {"expected": "{{ expected.team }}"}}), crashed, case_of({"team": "a"})
    )
    assert (found.value, found.truth) == (0.0, "a")
    assert found.label != "a"
    assert found.rationale == "no output: KeyError"


@pytest.mark.parametrize(("kind", "worst"), [("bleu", 0.0), ("chrf", 0.0), ("ter", 100.0)])
def test_a_crash_counts_as_the_empty_text_in_its_score_and_in_the_corpus(
    bind: Callable[..., BoundEvaluator], kind: str, worst: float
) -> None:
    crashed = output_of(None, status=Status.CRASHED, error=ErrorInfo(kind="step", message="KeyError"))
    case = case_of("the cat sat")
    found, empty = score(bind(kind), crashed, case), score(bind(kind), output_of(""), case)
    assert (found.value, found.rationale, found.error) == (worst, "no output: KeyError", None)
    assert found.sums == empty.sums != ()
    assert score(bind(kind), crashed, case_of("")).value is None


def test_a_truncated_output_is_judged_as_far_as_it_goes_F16(bind: Callable[..., BoundEvaluator]) -> None:
    found = score(bind("json_valid"), output_of('{"a": 1', status=Status.TRUNCATED))
    assert found.value == 0.0
    assert "cut" in str(found.rationale) or "truncated" in str(found.rationale)


class Odd:
    """An evaluator of another package that does what it should not."""

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0

    def __init__(self, gives: Any) -> None:
        self._gives = gives

    async def judge(self, subject: Subject) -> Judgement:
        if isinstance(self._gives, BaseException):
            raise self._gives
        return Judgement(self._gives, rationale=subject.case_id)


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (float("nan"), "nan, which is no score"),
        (float("inf"), "inf, which is no score"),
        (1.5, "1.5, which is no score of its range"),
        (-0.1, "-0.1, which is no score of its range"),
        (None, "c1"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x"),
    ],
)
def test_an_evaluators_fault_is_an_absent_score_with_its_reason(
    bind: Callable[..., BoundEvaluator], gives: Any, says: str
) -> None:
    bound = bind("exact_match")
    found = score(BoundEvaluator(bound.use, Odd(gives), "identity"), output_of())
    assert found.value is None
    assert found.error is not None and says in found.error


@pytest.mark.parametrize("function", ["code:shout", "code:much"])
def test_a_function_that_raises_or_leaves_its_range_gives_no_score(
    bind: Callable[..., BoundEvaluator], function: str
) -> None:
    found = score(bind({"python": function}), output_of())
    assert found.value is None and found.error


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("exact_match", {"exact_match": {}}, True),
        ("exact_match", {"exact_match": {"normalise": False}}, True),
        ("exact_match", {"exact_match": {"normalise": True}}, False),
        ("exact_match", {"exact_match": {"name": "other"}}, False),
        ("exact_match", {"exact_match": {"output": "{{ output }}"}}, False),
        ("exact_match", "json_valid", False),
        ({"number": {"tolerance": 1}}, {"number": {"tolerance": 1.0}}, True),
        ({"python": "code:fine"}, {"python": {"function": "code:fine", "range": [0, 1]}}, True),
        ({"python": "code:fine"}, {"python": {"function": "code:fine", "range": [0, 2]}}, False),
    ],
)
def test_an_identity_is_what_determines_the_scores(
    bind: Callable[..., BoundEvaluator], one: Any, other: Any, same: bool
) -> None:
    assert (bind(one).identity == bind(other).identity) == same


def test_the_identity_of_a_function_is_that_of_its_source(project: Callable[..., Path]) -> None:
    versions = [
        bind_all(project, [{"python": "code:fine"}], code)[0].identity
        for code in (CODE, CODE + "\n# a comment\n", CODE.replace("==", "!="))
    ]
    assert versions[0] == versions[1] != versions[2]


def test_the_record_of_an_evaluator_has_its_range(bind: Callable[..., BoundEvaluator]) -> None:
    bound = bind({"python": {"function": "code:fine", "range": [0, 2], "name": "mine"}})
    version = bound.version()
    assert (version.name, version.kind, version.low, version.high) == ("mine", "python", 0.0, 2.0)
    assert version.identity == bound.identity


def test_every_evaluator_that_does_not_fit_is_found_with_its_place(project: Callable[..., Path]) -> None:
    uses = [
        {"exact_match": {"normalize": True}},
        {"name": {"x": 1}},
        {"python": "code:absent"},
        {"python": {"function": "nowhere:f", "name": "b"}},
    ]
    with pytest.raises(DefinitionError) as raised:
        bind_all(project, uses)
    said = [str(finding) for finding in raised.value.findings]
    assert len(said) == 4
    assert all(one.startswith("experiments/e.experiment.yaml:") for one in said)
    assert "options of exact_match: any_of, normalise" in said[0]


# --- a step's own score -----------------------------------------------------------------------------------


def test_a_step_is_judged_by_its_output_unless_an_expression_picks_more_closely(
    bind: Callable[..., BoundEvaluator],
) -> None:
    spans = (
        span(0, None, "chain", "x"),
        span(1, 0, "find", {"passages": ["red"]}),
        span(2, 0, "other", "red"),
    )
    output = output_of("blue", spans=spans)
    use = {"retrieval": {"step": "find"}}
    assert score(bind(use), output).value == 1.0
    assert score(bind({"exact_match": {"step": "other"}}), output).value == 1.0
    picked = {"exact_match": {"step": "find", "output": "{{ steps.find.output.passages[0] }}"}}
    assert score(bind(picked), output).value == 1.0
    absent = score(bind({"exact_match": {"step": "answer"}}), output)
    assert absent.value is None and "answer" in str(absent.error)


def test_a_step_that_did_its_work_is_judged_though_the_chain_failed_after_it(
    bind: Callable[..., BoundEvaluator],
) -> None:
    error = ErrorInfo(kind="step", message="no", step="answer")
    failed = span(2, 0, "answer", None).model_copy(update={"status": Status.CRASHED, "error": error})
    spans = (span(0, None, "chain", None), span(1, 0, "find", "red"), failed)
    for status in (Status.CRASHED, Status.FILTERED, Status.REFUSED):
        output = output_of(None, status=status, error=error, spans=spans)
        assert score(bind({"exact_match": {"step": "find"}}), output).value == 1.0
        assert score(bind({"exact_match": {"step": "answer"}}), output).value == 0.0
        assert score(bind("exact_match"), output).value == (0.0 if status is Status.CRASHED else None)


def test_a_step_that_was_never_reached_scores_as_the_output_does(bind: Callable[..., BoundEvaluator]) -> None:
    error = ErrorInfo(kind="step", message="no", step="find")
    spans = (span(0, None, "chain", None),)
    crashed = output_of(None, status=Status.CRASHED, error=error, spans=spans)
    assert score(bind({"token_f1": {"step": "answer"}}), crashed).value == 0.0


def test_the_step_and_the_bar_are_part_of_what_an_evaluator_is(bind: Callable[..., BoundEvaluator]) -> None:
    uses = [{"token_f1": options} for options in ({}, {"step": "a"}, {"step": "b"}, {"pass_at": 0.5})]
    assert len({bind(use).identity for use in uses}) == len(uses)
