"""The journal gives back what it was given, tells what is missing, and never harms what it finds."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from llmops.definitions.dataset import Case
from llmops.errors import StoreError, StoreHeldError
from llmops.records import (
    Call,
    CallState,
    CaseNumbers,
    Comparison,
    Effect,
    EmbeddingRequest,
    Embeddings,
    ErrorInfo,
    Figure,
    Flip,
    ImagePart,
    Interval,
    Message,
    Output,
    OutputNumbers,
    Reply,
    Request,
    Row,
    RowNumbers,
    RunStatus,
    Score,
    ScoreNumbers,
    Side,
    Span,
    Spent,
    Status,
    TextPart,
    Tool,
    ToolCall,
    Usage,
)
from llmops.stores import has_store
from llmops.stores.journal import Cell, Journal, open_journal
from llmops.stores.rows import Rows, call_row
from tests.stores.conftest import DATABASES, Place, place_of
from tests.stores.samples import (
    EXACT,
    NOW,
    TONE,
    Batch,
    answered,
    apply,
    call_of,
    case_of,
    cells_of,
    digest,
    evaluator,
    output_of,
    run_of,
    score_of,
    span_of,
)
from tests.workplace import calls_in

# --- what any record may hold -----------------------------------------------------------------------------


def has_split_pair(text: str) -> bool:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") != text


NASTY = (
    "\0",
    "\ud800",
    "\udfff",
    "\u202e\u2066",
    "\U0001f600",
    '\\"',
    "\\u0041",
    "\u2028\r\n",
    "é",
    "e\u0301",
    "",
)
texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=()), max_size=20).filter(lambda text: not has_split_pair(text)),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
counts = st.integers(min_value=0, max_value=2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**64, 2**200) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(texts, values, max_size=3)
times = st.datetimes(timezones=st.just(UTC))
statuses = st.sampled_from(Status)
identities = texts.map(digest)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


errors = st.builds(ErrorInfo, kind=texts, message=texts, step=maybe(texts))
usages = st.builds(Usage, input_tokens=st.integers(0, 2**80), output_tokens=counts, estimated=st.booleans())
images = st.builds(ImagePart, image=texts)
tool_calls = st.lists(st.builds(ToolCall, id=texts, name=texts, arguments=texts), max_size=2).map(tuple)
messages = st.one_of(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts),
    st.builds(
        Message,
        role=st.sampled_from(["user", "assistant", "tool"]),
        content=texts | st.lists(st.builds(TextPart, text=texts) | images, max_size=3).map(tuple),
        tool_calls=tool_calls,
        tool_call_id=maybe(texts),
    ),
)
requests = st.builds(
    Request,
    messages=st.lists(messages, max_size=3).map(tuple),
    parameters=mappings,
    response_format=maybe(mappings),
    tools=st.lists(st.builds(Tool, name=texts, description=texts, parameters=mappings), max_size=2).map(
        tuple
    ),
)
embedding_requests = st.builds(
    EmbeddingRequest,
    inputs=st.lists(texts | images, min_size=1, max_size=3).map(tuple),
    purpose=st.sampled_from([None, "query", "document"]),
    dimensions=maybe(st.integers(1, 2**40)),
)
replies = st.builds(
    Reply,
    text=texts,
    status=statuses,
    finish_reason=maybe(texts),
    tool_calls=tool_calls,
    model=texts,
    system_fingerprint=maybe(texts),
    request_id=maybe(texts),
    usage=maybe(usages),
    latency_s=amounts,
    ttft_s=maybe(floats),
    tpot_s=maybe(floats),
    raw=st.binary(max_size=50),
)
embeddings = st.builds(
    Embeddings,
    vectors=st.lists(st.lists(floats, max_size=3).map(tuple), max_size=3).map(tuple),
    model=texts,
    request_id=maybe(texts),
    usage=maybe(usages),
    latency_s=amounts,
    raw=st.binary(max_size=50),
)
calls = st.builds(
    Call,
    id=st.just(""),
    model=texts,
    model_identity=identities,
    request=requests | embedding_requests,
    state=st.sampled_from(CallState),
    attempts=counts,
    reply=maybe(replies | embeddings),
    cost_usd=maybe(floats),
    error=maybe(errors),
    body=maybe(st.binary(max_size=50)),
    created_at=times,
    answered_at=maybe(times),
).map(lambda call: call if call.reply is None else call.model_copy(update={"body": None}))
spans = st.builds(
    Span,
    index=st.just(0),
    parent=maybe(counts),
    name=texts,
    kind=st.sampled_from(["prompt", "chain", "python"]),
    inputs=values,
    output=values,
    status=statuses,
    call_id=maybe(identities),
    model=maybe(texts),
    usage=maybe(usages),
    cost_usd=maybe(floats),
    start_s=floats,
    duration_s=floats,
    ttft_s=maybe(floats),
    tpot_s=maybe(floats),
    error=maybe(errors),
)
outputs = st.builds(
    Output,
    cell_id=st.just(""),
    value=values,
    status=statuses,
    error=maybe(errors),
    valid=maybe(st.booleans()),
    latency_s=maybe(floats),
    ttft_s=maybe(floats),
    input_tokens=maybe(counts),
    output_tokens=maybe(counts),
    usage_estimated=st.booleans(),
    cost_usd=maybe(floats),
    returned_model=maybe(texts),
    spans=st.lists(spans, max_size=3).map(
        lambda found: tuple(span.model_copy(update={"index": place}) for place, span in enumerate(found))
    ),
    created_at=times,
)
scores = st.builds(
    Score,
    evaluator=texts,
    evaluator_identity=st.just(EXACT.identity),
    value=maybe(floats),
    label=maybe(texts),
    truth=maybe(texts),
    parts=st.dictionaries(texts, floats, max_size=3),
    sums=st.lists(floats, max_size=3).map(tuple),
    call_ids=st.lists(identities, max_size=3).map(tuple),
    rationale=maybe(texts),
    error=maybe(texts),
)
cases = st.builds(
    Case,
    id=texts,
    inputs=mappings,
    expected=values,
    metadata=mappings,
    split=maybe(texts),
    slice=maybe(texts),
    cluster=maybe(texts),
)
figures = st.builds(
    Figure,
    value=maybe(floats),
    kind=st.sampled_from(["mean", "sum"]),
    n=st.integers(),
    interval=maybe(st.builds(Interval, low=floats, high=floats, level=floats)),
    note=maybe(texts),
)
numbers = count()


@pytest.fixture(scope="module", params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """Give one journal a database for all examples of a property; each example brings ids of its own."""
    with place_of(request.param, tmp_path_factory.mktemp("shared"), request).another() as journal:
        yield journal


# --- records come back unchanged --------------------------------------------------------------------------


@given(call=calls)
def test_a_call_comes_back_unchanged_f27(shared: Journal, call: Call) -> None:
    call = call.model_copy(update={"id": digest(f"call {next(numbers)}")})
    apply(shared, Batch(calls=[call]))
    # A reply without text keeps its raw bytes; no reply has none.
    assert shared.find_call(call.id) == call


@given(case=cases, output=outputs, score=scores, variant=texts)
def test_a_cell_comes_back_with_its_case_output_and_scores_f27(
    shared: Journal, case: Case, output: Output, score: Score, variant: str
) -> None:
    name = f"cell {next(numbers)}"
    cell = Cell(0, variant, 3, case.id, digest(name), digest(name))
    output = output.model_copy(update={"cell_id": cell.cell_id})
    shared.begin_run(run_of(name), [(cell, case)])
    apply(shared, Batch(outputs=[output], scores=[(cell.cell_id, cell.case_key, score)]))
    (row,) = shared.rows(name)
    assert (row.variant, row.repeat, row.case, row.output, row.scores) == (variant, 3, case, output, (score,))
    found = list(shared.pending(name, ["another evaluator"], variants=[variant], cases=[case.id], limit=1))
    redone = output.status in (Status.ERROR, Status.UNKNOWN)
    assert found == [(cell, case, None if redone else output)]


@given(experiment=texts, definition=mappings, metrics=st.dictionaries(texts, figures, max_size=3), time=times)
def test_a_run_comes_back_unchanged(
    shared: Journal, experiment: str, definition: dict[str, Any], metrics: dict[str, Figure], time: Any
) -> None:
    run = run_of(
        f"run {next(numbers)}",
        experiment=experiment,
        experiment_definition=definition,
        created_at=time,
        summary={"a": metrics},
        slices={"a": {"edge": metrics}},
    )
    shared.save_run(run)
    assert shared.find_run(run.id) == run
    assert shared.latest_run(experiment) == run


@pytest.mark.parametrize("value", [float("nan"), {"x": [float("inf")]}, b"bytes", {"deep": {1, 2}}], ids=repr)
def test_a_value_that_json_cannot_hold_is_refused_before_anything_is_written_f62(
    journal: Journal, value: object
) -> None:
    (cell, _), (other, _) = cells_of(1)
    with pytest.raises(StoreError, match="cannot be stored"):
        apply(journal, Batch(outputs=[output_of(other), output_of(cell, value)]))
    assert journal.n_pending("r1", ()) == 0
    journal.begin_run(run_of(), cells_of(1))
    assert journal.n_pending("r1", ()) == 2


def test_a_count_beyond_64_bits_is_refused_before_anything_is_written(journal: Journal) -> None:
    (cell, _) = cells_of(1)[0]
    with pytest.raises(StoreError, match="64 bits"):
        apply(journal, Batch(outputs=[output_of(cell, input_tokens=2**63)]))


def test_a_value_nested_without_end_is_refused_f67(journal: Journal) -> None:
    value: list[Any] = []
    for _ in range(200_000):
        value = [value]
    with pytest.raises(StoreError, match="cannot be stored"):
        apply(journal, Batch(outputs=[output_of(cells_of(1)[0][0], value)]))
    while value:  # taken apart by hand: freeing it in one go would recurse as well
        value = value.pop()


@pytest.mark.parametrize(
    "name", ["x'); DROP TABLE runs; --", 'x"; DROP TABLE runs; --', "%s %(x)s :x ?", "\\'; --", "a\0b\ud800"]
)
def test_hostile_names_are_only_names_s16(journal: Journal, name: str) -> None:
    cell = Cell(0, name, 0, name, digest(name), digest(name))
    journal.begin_run(run_of("r1", experiment=name), [(cell, Case(id=name, inputs={}))])
    assert journal.latest_run(name) is not None
    assert journal.n_cells("r1", variants=[name], cases=[name]) == 1
    apply(journal, Batch(outputs=[output_of(cell, name, returned_model=name)]))
    journal.deliveries.mark_failed("r1", name, name)
    (row,) = journal.rows("r1", variant=name)
    assert (row.variant, row.case.id, row.output) == (name, name, output_of(cell, name, returned_model=name))
    delivery = journal.deliveries.find("r1", name)
    assert delivery is not None and delivery.error == name


def test_an_id_that_is_no_text_is_a_store_error(journal: Journal) -> None:
    with pytest.raises(StoreError):
        journal.find_run("\udcff")  # what Python makes of a stray byte on the command line


# --- runs -------------------------------------------------------------------------------------------------


def test_runs_come_newest_first_whatever_the_clock_says_f48(journal: Journal) -> None:
    later = NOW.replace(year=2030)
    journal.begin_run(run_of("first", created_at=later), [])
    journal.begin_run(run_of("second"), [])
    journal.begin_run(run_of("other", experiment="tone"), [])
    assert [run.id for run in journal.runs("triage")] == ["second", "first"]
    assert [run.id for run in journal.runs()] == ["other", "second", "first"]
    assert journal.latest_run("nothing") is None


def test_a_run_begun_again_is_the_newest_and_keeps_its_record_and_cells(journal: Journal) -> None:
    journal.begin_run(run_of("first"), cells_of(2))
    journal.save_run(run_of("first", status=RunStatus.COMPLETE))
    journal.begin_run(run_of("second"), cells_of(2))
    journal.begin_run(run_of("first"), cells_of(9))
    latest = journal.latest_run("triage")
    assert latest is not None
    assert (latest.id, latest.status) == ("first", RunStatus.COMPLETE)
    assert journal.n_cells("first") == 4


def test_the_latest_run_of_all_is_the_one_begun_last(journal: Journal) -> None:
    assert journal.latest_run() is None
    for name, experiment in (("first", "triage"), ("second", "other"), ("first", "triage")):
        journal.begin_run(run_of(name, experiment=experiment), cells_of(1))
        latest = journal.latest_run()
        assert latest is not None and latest.id == name


def comparison_of(*flips: Flip) -> Comparison:
    side = Side(run_id="r1", variant="a", definition="prompts/a", identity=digest("a"))
    effect = Effect(
        metric="exact_match", scale="difference", baseline=0.5, candidate=1.0, estimate=0.5, improved=flips
    )
    return Comparison(
        created_at=NOW, baseline=side, candidate=side, dataset="tickets", n_cases=2, effects=(effect,)
    )


def test_many_runs_are_listed_without_their_comparisons_and_one_is_given_whole(journal: Journal) -> None:
    comparisons = (comparison_of(Flip(case_id="case-1", baseline=0.0, candidate=1.0)),)
    whole = run_of("whole", comparisons=comparisons)
    journal.save_run(whole)
    journal.save_run(run_of("plain"))
    assert journal.find_run("whole") == whole
    assert journal.runs() == [run_of("plain"), whole]
    statements: list[str] = []
    event.listen(
        journal._database.engine, "before_cursor_execute", lambda *told: statements.append(str(told[2]))
    )
    assert journal.runs("triage", with_comparisons=False) == [run_of("plain"), run_of("whole")]
    assert any("runs.record" in text for text in statements)
    assert not any("comparisons" in text for text in statements)


def test_transactions_of_any_size_leave_no_cycles_and_few_statements_behind(journal: Journal) -> None:
    statements: set[str] = set()
    event.listen(
        journal._database.engine, "before_cursor_execute", lambda *told: statements.add(str(told[2]))
    )
    with journal.hold("r1"):
        apply(journal, Batch(intents=[call_of("first")]))  # what is compiled and kept for good
        gc.collect()
        gc.disable()
        try:
            for n in range(1, 65):
                apply(journal, Batch(intents=[call_of(f"{n}-{place}") for place in range(n)]))
            assert gc.collect() < 64
        finally:
            gc.enable()
    assert sum("SELECT" in text and "FROM calls" in text and " IN (" in text for text in statements) == 7


def test_what_is_known_is_told_of_each_of_any_number_of_calls(journal: Journal) -> None:
    calls = [answered(call_of(f"c{place}")) for place in range(70)]
    for n in (1, 2, 3, 5, 64, 65, 70):
        apply(journal, Batch(calls=calls[:n]))
        known = apply(journal, Batch(intents=[call_of(f"c{place}") for place in range(n)]))
        assert sorted(known) == sorted(call.id for call in calls[:n])


def test_calls_are_those_of_whoever_held_the_store_when_they_were_asked_for(journal: Journal) -> None:
    for owner in ("first", "second"):
        with journal.hold(owner):
            apply(journal, Batch(intents=[call_of(owner), call_of("both")]))
    apply(journal, Batch(intents=[call_of("nobody's")]))
    assert [call.id for call in calls_in(journal, "first")] == [call_of("first").id]
    assert {call.id for call in calls_in(journal, "second")} == {call_of("second").id, call_of("both").id}


def test_a_run_can_be_begun_with_the_cells_of_another(journal: Journal) -> None:
    cells = cells_of(1_200)
    journal.begin_run(run_of("first"), cells)
    journal.begin_run(run_of("second"), journal.cells("first"))
    assert list(journal.cells("second")) == cells
    assert list(journal.cells("none")) == []


def test_a_run_whose_cells_break_off_was_not_begun(journal: Journal) -> None:
    def broken() -> Any:
        yield from cells_of(2)
        raise OSError("the dataset went away")

    with pytest.raises(OSError, match="went away"):
        journal.begin_run(run_of(), broken())
    assert journal.find_run("r1") is None
    assert journal.n_cells("r1") == 0


def test_the_latest_fresh_number_is_of_that_experiment(journal: Journal) -> None:
    assert journal.latest_fresh("triage") == 0
    for number, experiment in enumerate(("triage", "triage", "tone")):
        journal.begin_run(run_of(f"r{number}", experiment=experiment, fresh=number), [])
    assert journal.latest_fresh("triage") == 1


# --- what is missing --------------------------------------------------------------------------------------

subsets = st.sets(st.integers(0, 23))


@given(
    done=subsets,
    failed=subsets,
    exact=subsets,
    tone=subsets,
    filters=st.fixed_dictionaries(
        {
            "variants": maybe(st.sets(st.sampled_from("abc"))),
            "cases": maybe(st.sets(st.sampled_from([f"case-{number}" for number in range(5)]))),
            "limit": maybe(st.integers(0, 5)),
        }
    ),
    wanted=st.sets(st.sampled_from([EXACT.identity, TONE.identity])),
)
def test_pending_is_what_lacks_an_output_or_a_score_in_order(
    shared: Journal,
    done: set[int],
    failed: set[int],
    exact: set[int],
    tone: set[int],
    filters: dict[str, Any],
    wanted: set[str],
) -> None:
    name = f"pending {next(numbers)}"
    cells = [
        (Cell(c.position, c.variant, c.repeat, c.case_id, c.case_key, digest(name + c.cell_id)), case)
        for c, case in cells_of(4, variants="abc", repeats=2)
    ]
    scored = {EXACT.identity: exact, TONE.identity: tone}
    batch = Batch()
    for position in done | failed:
        status = Status.ERROR if position in failed else Status.TRUNCATED
        batch.outputs.append(output_of(cells[position][0], status=status, spans=(span_of(), span_of(1))))
    for version in (EXACT, TONE):
        for position in scored[version.identity]:
            cell = cells[position][0]
            batch.scores.append((cell.cell_id, cell.case_key, score_of(version)))
    shared.begin_run(run_of(name, n_cells=24), cells)
    apply(shared, batch)

    def selected(cell: Cell) -> bool:
        first = [case_of(number).id for number in range(4)][: filters["limit"]]
        return (
            (filters["variants"] is None or cell.variant in filters["variants"])
            and (filters["cases"] is None or cell.case_id in filters["cases"])
            and cell.case_id in first
        )

    kept = {output.cell_id: output for output in batch.outputs if output.status is not Status.ERROR}
    expected = [
        (cell, case, kept.get(cell.cell_id))
        for cell, case in cells
        if selected(cell)
        and (cell.cell_id not in kept or any(cell.position not in scored[identity] for identity in wanted))
    ]
    assert list(shared.pending(name, wanted, **filters)) == expected
    assert shared.n_pending(name, wanted, **filters) == len(expected)
    assert shared.n_cells(name, **filters) == sum(selected(cell) for cell, _ in cells)


def test_a_score_for_another_expected_answer_does_not_count(journal: Journal) -> None:
    ((cell, case),) = cells_of(1, variants="a")
    journal.begin_run(run_of(), [(cell, case)])
    apply(journal, Batch(outputs=[output_of(cell)], scores=[(cell.cell_id, digest("old case"), score_of())]))
    assert journal.n_pending("r1", [EXACT.identity]) == 1
    assert [row.scores for row in journal.rows("r1")] == [()]


def test_an_output_is_shared_by_all_runs_that_have_its_cell(journal: Journal) -> None:
    journal.begin_run(run_of("first"), cells_of(3))
    apply(journal, Batch(outputs=[output_of(cell) for cell, _ in cells_of(3)]))
    journal.begin_run(run_of("second"), cells_of(4))
    assert [cell.case_id for cell, _, _ in journal.pending("second", ())] == ["case-3", "case-3"]


def test_pending_leaves_out_what_is_finished_while_it_is_read(journal: Journal) -> None:
    cells = cells_of(600)
    journal.begin_run(run_of(), cells)
    pending = journal.pending("r1", ())
    first, *_ = next(pending)
    apply(journal, Batch(outputs=[output_of(cell) for cell, _ in cells]))
    positions = [cell.position for cell, _, _ in pending]
    assert first.position == 0
    assert positions == sorted(positions)
    assert len(positions) < len(cells) - 1
    assert journal.n_pending("r1", ()) == 0


# --- rows -------------------------------------------------------------------------------------------------


def test_rows_come_in_order_with_scores_in_the_order_of_the_runs_evaluators(journal: Journal) -> None:
    cells = cells_of(700)
    journal.begin_run(run_of(evaluators=(TONE, EXACT)), cells)
    foreign = evaluator("foreign")
    batch = Batch(outputs=[output_of(cell, cell.position, spans=(span_of(),)) for cell, _ in cells])
    batch.scores = [
        (cell.cell_id, cell.case_key, score_of(version))
        for cell, _ in cells
        for version in (EXACT, foreign, TONE)
    ]
    apply(journal, batch)
    rows = list(journal.rows("r1"))
    assert [row.output.value for row in rows if row.output] == list(range(1_400))
    assert {tuple(score.evaluator for score in row.scores) for row in rows} == {("tone", "exact_match")}
    assert all(row.output is not None and len(row.output.spans) == 1 for row in rows)


def test_rows_of_one_variant_may_leave_out_spans_and_have_no_output_yet(journal: Journal) -> None:
    cells = cells_of(2)
    journal.begin_run(run_of(), cells)
    apply(journal, Batch(outputs=[output_of(cells[1][0], spans=(span_of(),))]))
    first, second = journal.rows("r1", variant="b", with_spans=False)
    assert (first.case, second.case) == (case_of(0), case_of(1))
    assert first.output == output_of(cells[1][0])
    assert second.output is None


def test_numbers_are_those_of_the_rows_without_their_texts(journal: Journal) -> None:
    cells = [
        (cell, case.model_copy(update={"slice": "né" if cell.position % 3 else None, "cluster": "k\x00"}))
        for cell, case in cells_of(700)
    ]
    cells = [(replace(cell, case_key=case.key()), case) for cell, case in cells]
    journal.begin_run(run_of(evaluators=(TONE, EXACT)), cells)
    tried = [cell for cell, _ in cells if cell.position % 5]
    more: dict[str, Any] = {
        "status": Status.TRUNCATED,
        "returned_model": "m\ud800",
        "valid": False,
        "ttft_s": 0.1,
        "unfiltered": True,
    }
    outputs = [output_of(cell, "text", **(more if cell.position % 2 else {})) for cell in tried]
    scores: dict[str, Any] = {"label": "ü", "truth": "no", "parts": {"f": 0.5}, "sums": (1.0, 2.5)}
    batch = Batch(outputs=outputs)
    batch.scores = [
        (cell.cell_id, cell.case_key, score_of(version, **(scores if cell.position % 2 else {})))
        for cell in tried
        for version in (EXACT, evaluator("foreign"), TONE)
    ]
    apply(journal, batch)
    found = list(journal.numbers("r1", variant="b"))
    assert [in_order(row) for row in found] == [numbers_of(row) for row in journal.rows("r1", variant="b")]
    assert {row.output is None for row in found} == {True, False} and len(found) == 700


def in_order(row: RowNumbers) -> RowNumbers:
    return row._replace(scores=sorted(row.scores))


def numbers_of(row: Row) -> RowNumbers:
    case, output = row.case, row.output
    return RowNumbers(
        CaseNumbers(case.id, case.slice, case.cluster, case.key()),
        None if output is None else OutputNumbers(*(getattr(output, name) for name in OutputNumbers._fields)),
        sorted(
            ScoreNumbers(*(getattr(score, name) for name in ScoreNumbers._fields)) for score in row.scores
        ),
    )


@pytest.mark.parametrize("read", [Journal.rows, partial(Journal.numbers, variant="a")])
def test_rows_of_an_unknown_run_are_an_error(journal: Journal, read: Callable[..., Any]) -> None:
    with pytest.raises(StoreError, match="no run 'r9'"):
        list(read(journal, "r9"))


# --- calls and what came of them --------------------------------------------------------------------------


def test_an_intent_stands_as_sent_and_an_answered_one_comes_back(journal: Journal) -> None:
    old, new = answered(call_of("old")), call_of("new")
    apply(journal, Batch(calls=[old]))
    assert apply(journal, Batch(intents=[call_of("old"), new])) == {old.id: old}
    assert journal.find_call(new.id) == new
    assert journal.find_call("nothing") is None


@pytest.mark.parametrize("state", [CallState.FAILED, CallState.UNKNOWN, CallState.SENT])
def test_a_call_without_answer_is_sent_again_and_its_attempts_add_up_f09(
    journal: Journal, state: CallState
) -> None:
    call = call_of("one")
    apply(journal, Batch(calls=[call.model_copy(update={"state": state, "attempts": 3})]))
    assert apply(journal, Batch(intents=[call])) == {}
    sent = journal.find_call(call.id)
    assert sent is not None
    assert (sent.state, sent.attempts) == (CallState.SENT, 3)
    apply(journal, Batch(calls=[answered(call, attempts=2)]))
    assert journal.find_call(call.id) == answered(call, attempts=5)


def test_what_came_of_a_call_counts_once_however_often_it_is_told_f55(journal: Journal) -> None:
    call = call_of("one")
    failed = call.model_copy(update={"state": CallState.FAILED, "attempts": 2, "answered_at": NOW})
    apply(journal, Batch(intents=[call]))
    for _ in range(2):
        apply(journal, Batch(calls=[failed]))
    found = journal.find_call(call.id)
    assert found is not None and found.attempts == 2
    apply(journal, Batch(intents=[call]))
    apply(journal, Batch(calls=[failed]))  # sent anew: the same end is another one
    found = journal.find_call(call.id)
    assert found is not None and found.attempts == 4


def test_what_calls_came_to_counts_once_however_often_it_is_written_f55(journal: Journal) -> None:
    """Twice as it was, by whoever learnt nothing of the first time; once more from what was set aside."""
    ends = [answered(call_of(name), cost_usd=0.5) for name in ("one", "two")]
    with journal.hold("r1"):
        rows = Rows()
        for call in ends:
            rows.add_call(call_row(call), Spent(n_calls=1, usd=0.5))
        for _ in range(2):
            journal.commit(rows)
        later = Rows()
        later.add_call(call_row(answered(call_of("three"))), Spent(n_calls=2, n_retried=1, n_unpriced=1))
        journal.commit(later)
        journal.set_aside(rows)
        total = Spent(n_calls=4, n_retried=1, n_unpriced=1, usd=1.0)
        assert journal.account("r1") == total
    with journal.hold("r1"):
        assert journal.account("r1") == total
    assert [journal.find_call(call.id) for call in ends] == ends


def test_what_more_calls_came_to_than_one_statement_asks_for_counts_once_f55(journal: Journal) -> None:
    rows = Rows()
    for number in range(501):
        rows.add_call(call_row(answered(call_of(str(number)))), Spent(n_calls=1))
    with journal.hold("r1"):
        for _ in range(2):
            journal.commit(rows)
        assert journal.account("r1") == Spent(n_calls=501)


def test_the_first_answer_stays_f36(journal: Journal) -> None:
    call = call_of("one")
    apply(journal, Batch(calls=[answered(call, "first")]))
    apply(journal, Batch(calls=[answered(call, "late")]))
    apply(journal, Batch(calls=[call.model_copy(update={"state": CallState.FAILED})], intents=[call]))
    assert journal.find_call(call.id) == answered(call, "first")


def test_within_a_batch_an_answer_outweighs_its_intent_and_a_failure(journal: Journal) -> None:
    call = call_of("one")
    failed = call.model_copy(update={"state": CallState.FAILED})
    known = apply(journal, Batch(intents=[call], calls=[answered(call), failed]))
    assert known == {call.id: answered(call)}
    assert journal.find_call(call.id) == answered(call)


def test_an_output_and_a_score_replace_the_earlier_ones_whole(journal: Journal) -> None:
    ((cell, case),) = cells_of(1, variants="a")
    journal.begin_run(run_of(), [(cell, case)])
    for n_spans, value in ((3, 0.0), (1, 1.0)):
        output = output_of(cell, n_spans, spans=tuple(span_of(index) for index in range(n_spans)))
        apply(journal, Batch(outputs=[output], scores=[(cell.cell_id, cell.case_key, score_of(value=value))]))
        (row,) = journal.rows("r1")
        assert (row.output, row.scores) == (output, (score_of(value=value),))


def test_a_batch_larger_than_a_statement_arrives_whole(journal: Journal) -> None:
    n = 1_234
    calls = [answered(call_of(f"call {number}")) for number in range(n)]
    cells = cells_of(n, variants="a")
    journal.begin_run(run_of(), cells)
    made = [
        output_of(cell, spans=(span_of(call_id=call.id),))
        for (cell, _), call in zip(cells, calls, strict=True)
    ]
    apply(journal, Batch(calls=calls, outputs=made))
    assert len(apply(journal, Batch(intents=calls))) == n
    assert [journal.find_call(call.id) for call in calls] == calls
    assert [row.output for row in journal.rows("r1")] == made


# --- the outbox -------------------------------------------------------------------------------------------


def test_a_run_waits_for_each_target_until_its_newest_revision_is_delivered(journal: Journal) -> None:
    for name in ("old", "new"):
        journal.begin_run(run_of(name), [])
    assert journal.deliveries.waiting("mlflow") == []
    for name in ("new", "old", "old"):
        journal.save_run(run_of(name))
    assert [journal.revision(name) for name in ("old", "new", "none")] == [2, 1, 0]
    assert journal.deliveries.waiting("mlflow") == ["old", "new"]
    journal.deliveries.mark_delivered("old", "mlflow", 2, {"parent": "m-1", "children": {"a": "m-2"}})
    assert journal.deliveries.waiting("mlflow") == ["new"]
    assert journal.deliveries.waiting("elsewhere") == ["old", "new"]
    journal.save_run(run_of("old"))
    assert journal.deliveries.waiting("mlflow") == ["old", "new"]


def test_a_failed_delivery_keeps_what_was_delivered_before(journal: Journal) -> None:
    journal.begin_run(run_of(), [])
    assert journal.deliveries.find("r1", "mlflow") is None
    journal.deliveries.mark_failed("r1", "mlflow", "refused \ud800\0")
    first = journal.deliveries.find("r1", "mlflow")
    assert first is not None
    assert (first.delivered_revision, first.attempts, first.mlflow_ids) == (0, 1, {})
    assert first.error == "refused \ud800\0"
    journal.deliveries.mark_delivered("r1", "mlflow", 4, {"parent": "m-1"})
    journal.deliveries.mark_failed("r1", "mlflow", "stalled")
    last = journal.deliveries.find("r1", "mlflow")
    assert last is not None
    assert (last.delivered_revision, last.attempts, last.mlflow_ids) == (4, 3, {"parent": "m-1"})
    assert last.updated_at >= first.updated_at


def test_one_delivers_at_a_time_beside_whoever_runs(journal: Journal, place: Place) -> None:
    with journal.hold("r1"), place.another() as other:
        with (
            journal.delivering(),
            pytest.raises(StoreHeldError, match=f"pid {os.getpid()}"),
            other.delivering(),
        ):
            raise AssertionError("two deliver at once")
        with other.delivering():  # the first has let it go
            other.save_run(run_of())


def test_a_late_word_of_an_older_delivery_does_not_set_it_back(journal: Journal) -> None:
    journal.begin_run(run_of(), [])
    for revision in (3, 2):
        journal.deliveries.mark_delivered("r1", "mlflow", revision, {})
    delivery = journal.deliveries.find("r1", "mlflow")
    assert delivery is not None
    assert delivery.delivered_revision == 3
    assert delivery.error is None


def test_a_store_that_must_exist_is_not_made(place: Place) -> None:
    with pytest.raises(StoreError, match="no store here yet"):
        open_journal(place.url, root=place.root, create=False)
    assert not has_store(place.url, root=place.root)
    place.open().close()
    assert has_store(place.url, root=place.root)
    open_journal(place.url, root=place.root, create=False).close()


def test_selections_are_collections_of_any_kind(journal: Journal) -> None:
    journal.begin_run(run_of(), cells_of(3))
    kinds: tuple[Callable[[list[str]], Collection[str]], ...] = (list, tuple, set, frozenset)
    assert {journal.n_cells("r1", variants=kind(["a"])) for kind in kinds} == {3}
    assert journal.n_cells("r1", variants=[]) == 0
