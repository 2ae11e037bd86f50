"""Rows as a table: which columns there are, in which order, of which type, and what they hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.dataset import Case
from llmops.records import ErrorInfo, Output, Row, Score, Status
from llmops.report.flat_rows import FlatRows

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(*scores: Score, inputs: dict[str, Any] | None = None, output: Any = "x", **case: Any) -> Row:
    given = Output(cell_id="c", value=output, created_at=NOW)
    return Row(
        variant="a", repeat=0, case=Case(id="c", inputs=inputs or {}, **case), output=given, scores=scores
    )


def score(name: str, value: float | None = 1.0, **fields: Any) -> Score:
    return Score(evaluator=name, evaluator_identity="e", value=value, **fields)


def column(rows: list[Row], name: str) -> tuple[str, list[Any]]:
    table = FlatRows(rows)
    place = list(table.columns).index(name)
    return table.columns[name], [cells[place] for cells in table]


def test_columns_stand_in_the_order_in_which_a_case_goes_its_way() -> None:
    rows = [
        row(score("b", parts={"p": 0.5}), inputs={"y": 1}, metadata={"m": 1}),
        row(score("a"), score("b", parts={"q": 0.5, "p": 1}), inputs={"x": 1, "y": 2}),
    ]
    names = list(FlatRows(rows).columns)
    assert names[:8] == ["run", "experiment", "variant", "repeat", "case_id", "split", "slice", "cluster"]
    assert names[8:12] == ["inputs.y", "inputs.x", "expected", "output"]
    assert names[12:22] == [
        "status",
        "error_kind",
        "error_message",
        "valid",
        "latency_s",
        "ttft_s",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "model",
    ]
    scores = ["b", "b.p", "b.q", "b.rationale", "b.error", "a", "a.rationale", "a.error"]
    assert names[22:] == [*scores, "metadata.m"]


def test_a_row_holds_what_is_known_of_its_cell() -> None:
    output = Output(
        cell_id="k",
        status=Status.ERROR,
        error=ErrorInfo(kind="timeout", message="no reply"),
        valid=False,
        latency_s=0.5,
        ttft_s=0.25,
        input_tokens=3,
        output_tokens=4,
        cost_usd=0.125,
        returned_model="m-1",
        created_at=NOW,
    )
    case = Case(id="c", inputs={"q": "?"}, expected=["a"], split="test", slice="edge", cluster="w")
    judged = (score("s", None, error="no score", rationale="why"),)
    table = FlatRows([Row(variant="v", repeat=2, case=case, output=output, scores=judged)])
    (cells,) = table
    found = {name: cell for name, cell in zip(table.columns, cells, strict=True) if cell is not None}
    assert found == {
        "variant": "v",
        "repeat": 2,
        "case_id": "c",
        "split": "test",
        "slice": "edge",
        "cluster": "w",
        "inputs.q": "?",
        "expected": '["a"]',
        "status": "error",
        "error_kind": "timeout",
        "error_message": "no reply",
        "valid": False,
        "latency_s": 0.5,
        "ttft_s": 0.25,
        "input_tokens": 3,
        "output_tokens": 4,
        "cost_usd": 0.125,
        "model": "m-1",
        "s.rationale": "why",
        "s.error": "no score",
    }


def test_a_cell_that_was_not_carried_out_has_its_case_alone() -> None:
    table = FlatRows([Row(variant="v", repeat=0, case=Case(id="c", inputs={}), output=None)])
    (cells,) = table
    assert [cell for cell in cells if cell is not None] == ["v", 0, "c"]


@pytest.mark.parametrize(
    ("values", "kind", "cells"),
    [
        ([1, None, 2**62], "whole", [1, None, 2**62]),
        ([1, 2.5], "number", [1.0, 2.5]),
        ([2**53 + 1, 2.5], "text", ["9007199254740993", "2.5"]),
        ([2**63], "text", ["9223372036854775808"]),
        ([-(2**63)], "whole", [-(2**63)]),
        ([True, False], "truth", [True, False]),
        ([True, 1], "text", ["true", "1"]),
        (["a", 1], "text", ["a", "1"]),
        ([[1], {"b": "é"}], "text", ["[1]", '{"b":"é"}']),
        (["half \ud83d", "\ud83d\ude9a"], "text", ["half \ufffd", "🚚"]),
        ([None], "text", [None]),
    ],
)
def test_a_column_has_the_one_type_that_loses_nothing(values: list[Any], kind: str, cells: list[Any]) -> None:
    assert column([row(metadata={"m": value}) for value in values], "metadata.m") == (kind, cells)


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_come_out_equal_or_spelled(values: list[Any]) -> None:
    rows = [row(metadata={"m": value}) for value in [*values, 0]]
    kind, cells = column(rows, "metadata.m")
    for value, cell in zip([*values, 0], cells, strict=True):
        if value is None or kind != "text":
            assert cell == value
        else:
            assert isinstance(cell, str)
            assert float(cell) == value if not isinstance(value, bool) else cell in {"true", "false"}


def test_outputs_and_what_was_expected_are_text_so_that_they_can_be_held_together() -> None:
    rows = [row(output=72, expected=72), row(output=73, expected=73)]
    assert column(rows, "output") == column(rows, "expected") == ("text", ["72", "73"])


def test_an_evaluator_called_like_another_column_gives_way() -> None:
    clash = [score("output"), score("inputs.q"), score("a", parts={"error": 1, "b": 0}), score("a.b")]
    table = FlatRows([row(*clash, inputs={"q": "?"})])
    assert len(set(table.columns)) == len(table.columns)
    assert {"score.output", "score.inputs.q", "a.error", "score.a.error", "a.b", "score.a.b"} <= set(
        table.columns
    )
    (cells,) = table
    found = dict(zip(table.columns, cells, strict=True))
    assert (found["output"], found["score.output"], found["inputs.q"]) == ("x", 1.0, "?")
    assert table.columns["score.output"] == "number"


def test_evaluators_of_the_run_have_columns_though_none_has_scored(example: Callable[..., Any]) -> None:
    made = example()
    table = FlatRows([], made.run)
    assert [name for name in table.columns if name.startswith("classification")] == [
        "classification",
        "classification.rationale",
        "classification.error",
    ]
    assert len(table) == 0
    assert list(table) == []


def test_a_table_can_be_gone_through_again() -> None:
    table = FlatRows([row(output="a" * 2_000_000), row()])
    assert list(table) == list(table)
    assert len(table) == 2
