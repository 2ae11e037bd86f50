"""Rows as lines of JSON: nothing is lost, and a line is a line whatever stands in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.dataset import Case
from llmops.records import ErrorInfo, Output, Row, Score, Span, Status, Usage
from llmops.report.rows import row_json, write_rows
from llmops.stores.journal import Batch, Cell, open_journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = st.text(max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CASES = st.builds(
    Case, id=TEXT, inputs=st.dictionaries(TEXT, VALUE, max_size=2), expected=VALUE, slice=st.none() | TEXT
)
SPANS = st.builds(
    Span,
    index=st.integers(0, 9),
    parent=st.none(),
    name=TEXT,
    kind=st.just("prompt"),
    inputs=VALUE,
    output=VALUE,
    usage=st.none() | st.builds(Usage, input_tokens=st.integers(0), output_tokens=st.integers(0)),
)
OUTPUTS = st.builds(
    Output,
    cell_id=TEXT,
    value=VALUE,
    status=st.sampled_from(Status),
    error=st.none() | st.builds(ErrorInfo, kind=TEXT, message=TEXT),
    latency_s=st.none() | NUMBER,
    spans=st.lists(SPANS, max_size=2).map(tuple),
    created_at=st.datetimes(timezones=st.just(UTC)),
)
SCORES = st.builds(
    Score,
    evaluator=TEXT,
    evaluator_identity=TEXT,
    value=st.none() | NUMBER,
    parts=st.dictionaries(TEXT, NUMBER, max_size=2),
    rationale=st.none() | TEXT,
)
ROWS = st.builds(
    Row,
    variant=TEXT,
    repeat=st.integers(0, 9),
    case=CASES,
    output=st.none() | OUTPUTS,
    scores=st.lists(SCORES, max_size=2).map(tuple),
)


@given(st.lists(ROWS, max_size=3))
def test_written_rows_come_back_unchanged(rows: list[Row]) -> None:
    file = StringIO()
    assert write_rows(rows, file) == len(rows)
    text = file.getvalue()
    assert text.isascii()
    lines = text.splitlines()
    assert [Row.model_validate(json.loads(line)) for line in lines] == rows
    assert lines == [json.dumps(json.loads(line), sort_keys=True) for line in lines]


def test_text_that_is_no_unicode_survives() -> None:
    row = Row(variant="a", repeat=0, case=Case(id="c", inputs={"q": "half \ud83d"}), output=None)
    file = StringIO()
    write_rows([row], file)
    assert json.loads(file.getvalue())["case"]["inputs"]["q"] == "half \ud83d"


def test_rows_of_a_journal_come_back_with_their_spans(tmp_path: Path, example: Callable[..., Any]) -> None:
    made = example()
    journal = open_journal("sqlite:///store.db", root=tmp_path)
    kept = made.kept[:6]
    cells = [
        (Cell(place, row.variant, 0, row.case.id, row.case.key(), row.output.cell_id), row.case)
        for place, row in enumerate(kept)
    ]
    spans = (Span(index=0, parent=None, name="triage", kind="prompt", inputs={"q": "é"}, output="x"),)
    outputs = [row.output.model_copy(update={"spans": spans}) for row in kept]
    scores = [
        (cell.cell_id, cell.case_key, row.scores[0]) for (cell, _), row in zip(cells, kept, strict=True)
    ]
    journal.begin_run(made.run, cells)
    journal.apply(Batch(outputs=outputs, scores=scores))
    file = StringIO()
    write_rows(journal.rows(made.run.id), file)
    back = [Row.model_validate(json.loads(line)) for line in file.getvalue().splitlines()]
    journal.close()
    expected = [row.model_copy(update={"output": output}) for row, output in zip(kept, outputs, strict=True)]
    assert back == expected
    assert row_json(back[0])["output"]["created_at"] == datetime(
        2026, 5, 4, 12, tzinfo=UTC
    ).isoformat().replace("+00:00", "Z")
