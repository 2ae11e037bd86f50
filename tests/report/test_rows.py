"""Rows as files: nothing is lost in JSONL, nothing runs in CSV, and a Parquet file has one type a column."""

from __future__ import annotations

import csv
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.dataset import Case
from llmops.errors import UsageError
from llmops.records import ErrorInfo, Output, Row, Score, Span, Status, Usage
from llmops.report.flat_rows import FlatRows
from llmops.report.rows import row_json, row_line, write_rows
from llmops.stores.journal import Cell, open_journal
from tests.stores.samples import Batch, apply

if TYPE_CHECKING:
    from collections.abc import Callable

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


SUFFIXES = (".jsonl", ".csv", ".parquet")


def row(name: str = "c1", answer: Any = "x", **case: Any) -> Row:
    output = Output(cell_id=name, value=answer, latency_s=-0.0, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    return Row(variant="a", repeat=0, case=Case(id=name, inputs={"q": "?"}, **case), output=output)


# --- JSONL ------------------------------------------------------------------------------------------------


@given(st.lists(ROWS, max_size=3))
def test_written_rows_come_back_unchanged(rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        assert write_rows(rows, path) == len(rows)
        text = path.read_bytes().decode("ascii")
    lines = text.splitlines()
    assert [Row.model_validate(json.loads(line)) for line in lines] == rows
    assert lines == [json.dumps(json.loads(line), sort_keys=True) for line in lines]


def test_text_that_is_no_unicode_survives_as_json() -> None:
    assert json.loads(row_line(row(answer="half \ud83d")))["output"]["value"] == "half \ud83d"


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
    apply(journal, Batch(outputs=outputs, scores=scores))
    path = tmp_path / "rows.jsonl"
    assert write_rows(journal.rows(made.run.id), path) == 6
    back = [Row.model_validate(json.loads(line)) for line in path.read_text().splitlines()]
    journal.close()
    expected = [row.model_copy(update={"output": output}) for row, output in zip(kept, outputs, strict=True)]
    assert back == expected
    assert row_json(back[0])["output"]["created_at"] == datetime(
        2026, 5, 4, 12, tzinfo=UTC
    ).isoformat().replace("+00:00", "Z")


# --- CSV --------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("first", list("=+-@\t\r\n\0＝＋－＠"))
def test_no_text_can_be_a_formula_s12(tmp_path: Path, first: str) -> None:
    danger = f"{first}cmd|' /C calc'!A0"
    path = tmp_path / "rows.csv"
    hostile = row(answer=danger, expected=danger, metadata={danger: danger}, slice=danger)
    write_rows([hostile], path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell[:1] == first and cell != "-0.0"]
    found = read_csv(path)[0]
    assert found["output"] == found["expected"] == found[f"metadata.{danger}"] == f"'{danger}"


def test_every_text_of_a_csv_stands_in_quotes_and_no_number_does(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows([row(answer='1;=2,"3"\n4', metadata={"n": -5, "f": -0.5, "t": True})], path)
    header, text = path.read_bytes().decode("utf-8-sig").split("\r\n", 1)
    assert all(name.startswith('"') for name in header.split(","))
    assert '"1;=2,""3""\n4"' in text
    assert text.endswith(',-5,-0.5,"true"\r\n')


def test_a_csv_is_read_alike_by_python_and_pandas_and_marked_for_excel(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [row("c1", "é 配送 🚚\r\n\u2028", expected=3), row("c2", ["a", {"b": None}]), row("c3", "")]
    assert write_rows(rows, path) == 3
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert frame.to_dict("records") == read_csv(path)
    assert list(frame["output"]) == ["é 配送 🚚\r\n\u2028", '["a",{"b":null}]', ""]
    assert list(frame["expected"]) == ["3", "", ""]


# --- Parquet ----------------------------------------------------------------------------------------------


@given(st.lists(ROWS, max_size=3))
def test_a_parquet_file_holds_the_table_of_the_rows(rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        assert write_rows(rows, path) == len(rows)
        table = pq.read_table(path)
    flat = FlatRows(rows)
    assert table.column_names == list(flat.columns)
    assert [list(cells.values()) for cells in table.to_pylist()] == list(flat)


def test_all_groups_of_a_parquet_file_have_the_types_of_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [row(f"c{n}", metadata={} if n < 4_000 else {"late": 1.5}) for n in range(4_001)]
    assert write_rows(iter(rows), path) == 4_001
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3
    assert str(file.schema_arrow.field("metadata.late").type) == "double"
    assert file.read()["metadata.late"].null_count == 4_000
    types = {
        name: str(file.schema_arrow.field(name).type) for name in ("repeat", "valid", "latency_s", "ttft_s")
    }
    assert types == {"repeat": "int64", "valid": "bool", "latency_s": "double", "ttft_s": "double"}


# --- all three --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_rows_are_a_file_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix.upper()}"
    assert write_rows([], path) == 0
    assert path.is_file()


@pytest.mark.parametrize("name", ["rows", "rows.json", "rows.xlsx", "rows.csv.gz"])
def test_another_suffix_is_refused_with_the_three_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.jsonl, \.csv, \.parquet"):
        write_rows([], tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_says_of_which_run_it_is(tmp_path: Path, suffix: str, example: Callable[..., Any]) -> None:
    made = example()
    path = tmp_path / f"rows{suffix}"
    write_rows(made.kept, path, run=made.run)
    frame = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert set(frame["run"]) == {"triage-1a2b3c4d"}
    assert set(frame["experiment"]) == {"triage"}
    assert list(frame["case_id"]) == [kept.case.id for kept in made.kept]
