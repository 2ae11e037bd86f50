"""Which cases are shown, and what of each, as plain values."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.dataset import Case
from llmops.records import (
    Blame,
    Call,
    CallState,
    DatasetVersion,
    ErrorInfo,
    EvaluatorVersion,
    Message,
    ModelVersion,
    Output,
    Request,
    Row,
    Run,
    RunStatus,
    Score,
    Span,
    Status,
    StepBlame,
    Usage,
    Variant,
)
from llmops.stores.traces import MAX_TEXT, MAX_VALUE, CaseTrace, Choice, Teller, bounded

NOW = datetime(2026, 5, 4, tzinfo=UTC)
EXACT = EvaluatorVersion(name="exact", kind="exact_match", identity="e" * 64, low=0.0, high=1.0)


def variant(name: str, *, is_baseline: bool = False) -> Variant:
    model = ModelVersion(name="default", provider="embedded", model="e-1", identity="m" * 64)
    return Variant(
        name=name,
        definition="chains/triage",
        reference="triage",
        definition_identity="d" * 64,
        identity=name * 8,
        models=(model,),
        is_baseline=is_baseline,
    )


def make_run(**changes: Any) -> Run:
    fields: dict[str, Any] = {
        "id": "triage-1",
        "experiment": "triage",
        "identity": "r" * 64,
        "status": RunStatus.COMPLETE,
        "created_at": NOW,
        "dataset": DatasetVersion(name="tickets", split=None, version="v", n_cases=9, path="tickets.jsonl"),
        "variants": (variant("old", is_baseline=True), variant("new")),
        "evaluators": (EXACT,),
        "repeats": 1,
        "seed": 0,
        "n_cells": 18,
    }
    return Run(**(fields | changes))


def score(value: float | None, **fields: Any) -> Score:
    error = "absent" if value is None else None
    return Score(evaluator="exact", evaluator_identity="e" * 64, value=value, error=error, **fields)


def row(name: str, number: int, points: float | None = 1.0, *, repeat: int = 0, **output: Any) -> Row:
    fields: dict[str, Any] = {"value": "yes", "created_at": NOW} | output
    return Row(
        variant=name,
        repeat=repeat,
        case=Case(id=f"c{number}", inputs={"q": str(number)}, expected="yes"),
        output=Output(cell_id=f"{name}{number}{repeat}", **fields),
        scores=(score(points),),
    )


def tell(found: Row, run: Run | None = None, **options: Any) -> CaseTrace:
    teller = Teller(run or make_run(), **({"call_of": lambda _: None} | options))
    told = teller.tell(found)
    assert told is not None
    return told


# --- which cases ------------------------------------------------------------------------------------------


def chosen(values: list[tuple[float | None, float | None]], limit: int) -> set[str]:
    choice = Choice(make_run(), {"new": "old"}, limit)
    for number, (old, new) in enumerate(values):
        choice.add([row("old", number, old), row("new", number, new)])
    return {case_id for case_id, _ in choice.cases}


def test_flips_and_missing_scores_come_first_then_low_scores_then_the_order_of_the_run() -> None:
    values: list[tuple[float | None, float | None]] = [(1, 1), (1, 1), (0, 0), (0, 1), (1, None)]
    assert chosen(values, 2) == {"c3", "c4"}
    assert chosen(values, 3) == {"c2", "c3", "c4"}
    assert chosen(values, 4) == {"c0", "c2", "c3", "c4"}


def test_an_error_is_shown_before_anything_that_went_well() -> None:
    choice = Choice(make_run(), {}, 1)
    choice.add([row("new", 0)])
    failed = row("new", 1, status=Status.ERROR, error=ErrorInfo(kind="timeout", message="late"))
    choice.add([failed])
    assert choice.cases == {("c1", 0)}


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, None]), st.sampled_from([0.0, 1.0, None])), max_size=40))
def test_no_flip_is_left_out_while_an_equal_pair_is_shown(
    values: list[tuple[float | None, float | None]],
) -> None:
    shown = chosen(values, 10)
    assert len(shown) == min(10, len(values))
    flips = {f"c{n}" for n, (old, new) in enumerate(values) if old != new or old is None}
    assert flips <= shown or shown <= flips


def test_an_evaluator_is_yes_or_no_only_when_it_never_said_anything_between() -> None:
    choice = Choice(make_run(), {})
    choice.add([row("old", 0, 1.0), row("new", 0, None)])
    assert choice.yes_or_no == {"exact"}
    choice.add([row("old", 1, 0.5), row("new", 1, 0.0)])
    assert choice.yes_or_no == frozenset()


# --- one case ---------------------------------------------------------------------------------------------


def test_a_row_without_output_is_not_shown() -> None:
    empty = Row(variant="new", repeat=0, case=Case(id="c", inputs={}), output=None)
    assert Teller(make_run(), call_of=lambda _: None).tell(empty) is None


def test_a_score_is_a_yes_or_no_only_where_it_was_said_to_be() -> None:
    assert tell(row("new", 0, 1.0), yes_or_no={"exact"}).marks[0].value is True
    assert type(tell(row("new", 0, 1.0)).marks[0].value) is float


def test_steps_keep_their_times_parents_and_usage() -> None:
    chain = Span(index=0, parent=None, name="triage", kind="chain", inputs={"q": "1"}, duration_s=0.5)
    prompt = Span(
        index=1,
        parent=0,
        name="ask",
        kind="prompt",
        inputs={"q": "1"},
        output="yes",
        call_id="k",
        model="default",
        usage=Usage(input_tokens=7, output_tokens=2),
        cost_usd=0.5,
        start_s=0.1,
        duration_s=0.4,
    )
    request = Request(messages=(Message(role="user", content="what?"),), parameters={"temperature": 0})
    call = Call(
        id="k", model="default", model_identity="m", request=request, state=CallState.ANSWERED, created_at=NOW
    )
    told = tell(row("new", 1, spans=(chain, prompt), latency_s=0.5), call_of={"k": call}.get)
    case, first, second = told.steps
    assert (case.parent, first.parent, second.parent) == (None, 0, 1)
    assert (told.name, case.name, first.name, second.name) == ("triage", "c1", "triage", "ask")
    assert second.inputs == {"messages": [{"role": "user", "content": "what?"}], "temperature": 0}
    assert second.extra["inputs"] == {"q": "1"}
    assert (second.provider, second.input_tokens, second.output_tokens) == ("embedded", 7, 2)
    assert second.start_ns - case.start_ns == 100_000_000
    assert case.end_ns == second.end_ns == int(NOW.timestamp()) * 10**9


def test_equal_inputs_are_kept_apart_by_the_id_and_the_repeat() -> None:
    run = make_run(repeats=2)
    requests = {tell(row("new", 0, repeat=repeat), run).request for repeat in (0, 1)}
    assert len(requests) == 2
    assert "repeat" not in tell(row("new", 0)).steps[0].inputs


def test_the_key_changes_with_whatever_is_shown_and_with_nothing_else() -> None:
    plain = row("new", 0)
    assert tell(plain).key == tell(plain.model_copy()).key
    others = [
        row("old", 0),
        row("new", 1),
        row("new", 0, 0.0),
        row("new", 0, value="no"),
        row("new", 0, status=Status.TRUNCATED, error=ErrorInfo(kind="truncated", message="cut")),
        row("new", 0, latency_s=2.0),
    ]
    assert len({tell(other).key for other in [plain, *others]}) == len(others) + 1
    assert tell(plain, make_run(id="triage-2")).key != tell(plain).key


def test_what_is_neither_an_answer_nor_an_error_of_the_world_is_shown_as_failed() -> None:
    refused = row(
        "new", 0, value=None, status=Status.REFUSED, error=ErrorInfo(kind="refused", message="I cannot")
    )
    told = tell(refused)
    assert told.failed
    assert told.response == "I cannot"
    assert told.steps[0].error == "refused: I cannot"
    assert not tell(row("new", 0, status=Status.TRUNCATED)).failed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_bounded_value_is_what_it_was_but_for_what_cannot_be_stored(value: Any) -> None:
    found = json.dumps(bounded(value), ensure_ascii=False)
    found.encode()
    plain = json.dumps(value, ensure_ascii=False)
    if not any("\ud800" <= character <= "\udfff" for character in plain) and "\\u0000" not in plain:
        assert bounded(value) == value


def test_what_is_too_long_or_too_deep_says_so() -> None:
    assert bounded("x" * 50_000).endswith("[shortened from 50000 characters; whole in rows.jsonl]")
    many = bounded(["x" * 9_000] * 10)
    assert isinstance(many, str)
    assert len(many) <= MAX_TEXT < MAX_VALUE
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert "rows.jsonl" in bounded(deep)


def test_a_wrong_case_is_labelled_with_the_step_it_comes_from_and_told_anew_when_that_changes() -> None:
    steps = (
        StepBlame(step="find", share=0.5, case_ids=("c1",)),
        StepBlame(step=None, share=0.5, case_ids=("c2",)),
    )
    blame = Blame(metric="exact", pass_at=1.0, n=9, n_wrong=2, steps=steps)
    run = make_run(blame={"new": blame})
    told = [tell(row("new", number, 0.0), run) for number in (1, 2)]
    assert [found.labels.get("blame") for found in told] == ["find", None]
    plain = [tell(row("new", number, 0.0)) for number in (1, 2)]
    assert told[0].key != plain[0].key
    assert told[1].key == plain[1].key
